"""Ability: what a run can still do, and how far it moved from its base and its parent (docs/method.md, section 8)."""


rule measure_drift:
    """KL, agreement and perplexity of one run on its base's and its parent's own answers to held-out harmless prompts."""
    input:
        model=manifest,
        adapter=adapter(own),
        prompts=prompts(),
        base=of(base, *REFERENCE),
        parent=of(parent, *REFERENCE),
    output:
        table="<run>/drift.csv",
    log:
        "<logs>/measure_drift/<job>.log",
    benchmark:
        "<timings>/measure_drift/<job>.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(4000, 2),
        runtime=minutes(60),
        gpu=GPUS,
    params:
        row=row,
        cfg=cfg("model"),
        code=code("measure_drift"),
    script:
        "../scripts/measure_drift.py"


rule run_lm_eval:
    """Run lm-evaluation-harness on one loaded model; keep every question's result."""
    input:
        model=manifest,
        adapter=adapter(own),
        sources=[data(name) for name in study.task_sources()],
        questions=expand("resources/tasks/{task}.json", task=study.fetched_tasks()),
    output:
        results="<run>/lm_eval.json",
    log:
        "<logs>/run_lm_eval/<job>.log",
    benchmark:
        "<timings>/run_lm_eval/<job>.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(4000, 2),
        runtime=minutes(720),
        gpu=GPUS,
    params:
        row=row,
        cfg=cfg("model", "ability"),
        source_names=study.task_sources(),
        code=code("run_lm_eval"),
    script:
        "../scripts/run_lm_eval.py"
