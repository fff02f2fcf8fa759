"""Separability: embeddings -> linear probes, the layers they choose, and how far the classes lie apart (docs/method.md, section 9)."""


rule measure_separability:
    """Fit the probes of one run on the attack split, choose layers on validation, report on test."""
    input:
        embeddings=one(own, "embeddings.safetensors"),
        base=one(base, "embeddings.safetensors"),
        prompts=prompts(),
    output:
        probes="<run>/probes.safetensors",
        layers="<run>/layers.json",
        table="<run>/separability.csv",
    log:
        "<logs>/measure_separability/<job>.log",
    benchmark:
        "<timings>/measure_separability/<job>.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(3700, 0.5),
        runtime=minutes(60),
    params:
        row=row,
        cfg={
            **study.section("probes"),
            "harmful_sets": study.sets_of("harmful"),
            "safe_sets": study.sets_of("safe", "attack"),
        },
        seed=lambda w: int(w.seed),
        code=code("measure_separability"),
    script:
        "../scripts/measure_separability.py"
