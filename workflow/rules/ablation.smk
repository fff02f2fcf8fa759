"""Ablation: which layer's direction carries the refusal, and at which token taking it out turns an answer."""


rule collect_directions:
    """Tell which layer's direction an ablation needs, and how far each run turned its parent's."""
    input:
        searches=lambda w: search_tables(ablated(scope(w))),
        own=lambda w: [at(row, "embeddings.safetensors") for row, _ in ablated(scope(w))],
        parents=lambda w: [at(parent_row(row), "embeddings.safetensors") for row, _ in ablated(scope(w))],
        prompts=prompts(),
    output:
        table=report(
            "<results>/tables/{sweep}directions.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "directions"},
        ),
    log:
        "<logs>/collect_directions/{sweep}all.log",
    benchmark:
        "<timings>/collect_directions/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        rows=lambda w: searchers(ablated(scope(w))),
        sets=ATTACKER_SETS,
        code=code("collect_directions"),
    script:
        "../scripts/collect_directions.py"


rule measure_turning:
    """Measure at which token a run leaves its parent's refusals under the ablation that its attacker chose."""
    input:
        model=manifest,
        adapter=adapter(own),
        prompts=prompts(),
        embeddings="<run>/embeddings.safetensors",
        search="<run>/answers/{bundle}.search.csv",
        answers=one(refuser, REFERENCE[0]),
        states=one(refuser, REFERENCE[1]),
    output:
        table="<run>/turning/{bundle}.csv",
    log:
        "<logs>/measure_turning/<job>/{bundle}.log",
    benchmark:
        "<timings>/measure_turning/<job>/{bundle}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(4000, 2),
        runtime=minutes(60),
        gpu=GPUS,
    params:
        row=row,
        cfg=cfg("model", attacker_sets=ATTACKER_SETS),
        code=code("measure_turning"),
    script:
        "../scripts/measure_turning.py"


rule collect_turning:
    """Tell at which token each run of a sweep leaves its parent's refusals under ablation."""
    input:
        tables=lambda w: [at(row, f"turning/{bundle}.csv") for row, bundle in ablated(scope(w))],
    output:
        table=report(
            "<results>/tables/{sweep}turning.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "turning"},
        ),
    log:
        "<logs>/collect_turning/{sweep}all.log",
    benchmark:
        "<timings>/collect_turning/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        rows=lambda w: searchers(ablated(scope(w))),
        code=code("collect_turning"),
    script:
        "../scripts/collect_turning.py"


rule plot_directions:
    """Which layer's direction carries the refusal, and whether the defence turned it."""
    input:
        directions="<results>/tables/{sweep}directions.csv",
        layers=lambda w: [auto_layers(row) for row in changing(w)],
    output:
        svg=report(
            "<results>/figures/{sweep}directions.{model}.svg",
            caption="../report/directions.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "directions"},
        ),
        png="<results>/figures/{sweep}directions.{model}.png",
    log:
        "<logs>/plot_directions/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_directions/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        changed=lambda w: study.changed_layers(scope(w)),
        code=code("plot_directions"),
    script:
        "../scripts/plot_directions.py"


rule plot_turning:
    """At which token of a refusal an ablation turns the answer."""
    input:
        turning="<results>/tables/{sweep}turning.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}turning.{model}.svg",
            caption="../report/turning.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "turning"},
        ),
        png="<results>/figures/{sweep}turning.{model}.png",
    log:
        "<logs>/plot_turning/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_turning/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_turning"),
    script:
        "../scripts/plot_turning.py"
