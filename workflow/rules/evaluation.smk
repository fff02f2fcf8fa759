"""Evaluation: a run and a bundle of attack x benchmark cells -> answers -> verdicts (sections 6 and 7)."""


rule generate_answers:
    """Answer the benchmarks of one bundle on one loaded model. The answers may be harmful: their owner alone reads them."""
    input:
        model=manifest,
        adapter=adapter(own),
        prompts=prompts(),
        embeddings=attacked_embeddings,
        probes=probes,
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
        mem_mb=6000,
        runtime=720,
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
            sets=SETS,
            attacker_sets=ATTACKER_SETS,
            judge=JUDGE.model_dump(),
        ),
        code=code("generate_answers", attack_of),
    script:
        "../scripts/generate_answers.py"


rule judge_answers:
    """Give every answer of one bundle its verdict: refusal, compliance, degenerate, or missing. The table has no text."""
    input:
        answers="<run>/answers/{bundle}.jsonl",
        prompts=prompts(),
    output:
        verdicts="<run>/verdicts/{bundle}.{judge}.csv",
    log:
        "<logs>/judge_answers/<job>/{bundle}.{judge}.log",
    benchmark:
        "<timings>/judge_answers/<job>/{bundle}.{judge}.tsv"
    wildcard_constraints:
        judge=judges_of(lambda kind: kind == "keyword"),
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        row=row,
        name=lambda w: w.judge,
        judge=lambda w: study.config.judges[w.judge].model_dump(),
        code=code("judge_answers", lambda w: [JUDGES[study.config.judges[w.judge].kind]]),
    script:
        "../scripts/judge_answers.py"


rule ask_judge:
    """Ask a model for its verdict on every answer of one bundle; what it cannot read is missing. The table has no text."""
    input:
        answers="<run>/answers/{bundle}.jsonl",
        prompts=prompts(),
        model=judging_manifest,
    output:
        verdicts="<run>/verdicts/{bundle}.{judge}.csv",
    log:
        "<logs>/ask_judge/<job>/{bundle}.{judge}.log",
    benchmark:
        "<timings>/ask_judge/<job>/{bundle}.{judge}.tsv"
    wildcard_constraints:
        judge=judges_of(lambda kind: kind != "keyword"),
    threads: THREADS
    resources:
        mem_mb=judging_memory,
        runtime=720,
        gpu=judging_gpus,
    params:
        row=row,
        name=lambda w: w.judge,
        judge=lambda w: study.config.judges[w.judge].model_dump(),
        sets=lambda w: study.judged_sets(w.judge),
        model=judging_settings,
        code=code("ask_judge", lambda w: [JUDGES[study.config.judges[w.judge].kind]]),
    script:
        "../scripts/ask_judge.py"
