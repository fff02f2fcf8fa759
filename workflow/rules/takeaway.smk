"""What a reader takes away: the findings in sentences, and released models with their cards."""


rule write_findings:
    """Say in five sentences a model what was found, made from the tables; with the main table and the targets."""
    input:
        **{name: f"<results>/tables/{name}.csv" for name in PAGE_TABLES},
        layers=[main_layers(model) for model in study.config.select.models],
    output:
        rst="<results>/findings.rst",
        html=report(
            "<results>/findings.html",
            caption="../report/findings.rst",
            category="Findings",
            labels={"page": "findings"},
        ),
        findings="<results>/tables/findings.csv",
        main=report(
            "<results>/tables/main.csv",
            caption="../report/main_table.rst",
            category="Findings",
            labels={"page": "main table"},
        ),
        targets=report(
            "<results>/tables/targets.csv",
            caption="../report/targets.rst",
            category="Findings",
            labels={"page": "targets"},
        ),
    log:
        "<logs>/write_findings.log",
    benchmark:
        "<timings>/write_findings/all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        cfg={"studies": [study.report(model) for model in study.config.select.models]},
        code=code("write_findings"),
    script:
        "../scripts/write_findings.py"


rule merge_adapter:
    """Fold a released run's adapter into its base, and check that logits and answers stay."""
    input:
        model=manifest,
        adapter=adapter(own),
        prompts=prompts(),
    output:
        config="<run>/merged/config.json",
        weights="<run>/merged/model.safetensors",
        check="<run>/merged/check.json",
    log:
        "<logs>/merge_adapter/<job>.log",
    benchmark:
        "<timings>/merge_adapter/<job>.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(4000, 2, "float32"),
        runtime=minutes(60),
        disk_mb=disk(1, "float32"),
        gpu=GPUS,
    params:
        row=row,
        cfg=cfg("model", "merge", max_new_tokens=study.config.generation.max_new_tokens),
        code=code("merge_adapter"),
    script:
        "../scripts/merge_adapter.py"


rule write_card:
    """Write the model card of a released run: what was measured, with intervals, and what was not."""
    input:
        **{name: f"<results>/tables/{name}.csv" for name in [*PAGE_TABLES, "settings"]},
        layers=lambda w: main_layers(w.model),
        own_layers=lambda w: auto_layers(row(w)),
        check="<run>/merged/check.json",
        manifest=manifest,
    output:
        card=report(
            "<run>/merged/README.md",
            caption="../report/card.rst",
            category="Models",
            labels={"model": "{model}", "run": "{run}", "seed": "{seed}"},
        ),
    log:
        "<logs>/write_card/<job>.log",
    benchmark:
        "<timings>/write_card/<job>.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        row=row,
        cfg=card_settings,
        code=code("write_card"),
    script:
        "../scripts/write_card.py"
