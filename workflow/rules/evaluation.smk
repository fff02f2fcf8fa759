"""Evaluation: a run and a bundle of attack x benchmark cells -> answers (docs/method.md, section 6)."""


rule generate_answers:
    """Answer the benchmarks of one bundle on one loaded model. The answers may be harmful: their owner alone reads them."""
    input:
        model=manifest,
        adapter=adapter(own),
        prompts=prompts(),
        embeddings=attacked_embeddings,
        probes=probes,
        base=fitted_model("base"),
        parent=fitted_model("parent"),
        targets=targets,
        files=attack_files,
    output:
        answers="<run>/answers/{bundle}.jsonl",
        search="<run>/answers/{bundle}.search.csv",
    log:
        "<logs>/generate_answers/<job>/{bundle}.log",
    benchmark:
        "<timings>/generate_answers/<job>/{bundle}.tsv"
    threads: THREADS
    resources:
        mem_mb=attack_memory,
        runtime=minutes(720),
        gpu=GPUS,
    params:
        row=row,
        bundle=lambda w: w.bundle,
        fitted_on=fitted_on,
        cfg=cfg(
            "model",
            "generation",
            attack=attack,
            bundle=bundle,
            attacker_sets=ATTACKER_SETS,
            judge=JUDGE.model_dump(),
        ),
        code=code("generate_answers", attack_of),
    script:
        "../scripts/generate_answers.py"
