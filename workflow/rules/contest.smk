"""The contest: settings tried for each method on validation, and what the chosen runs hold against every attack."""


rule collect_contest:
    """Set the runs of a sweep beside each other: what each holds against all adaptive attacks, and its cost."""
    input:
        dsr="<results>/tables/{sweep}dsr.csv",
        robustness="<results>/tables/{sweep}robustness.csv",
        training="<results>/tables/{sweep}training.csv",
    output:
        table=report(
            "<results>/tables/{sweep}contest.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "contest"},
        ),
        page="<results>/tables/{sweep}contest.md",
    log:
        "<logs>/collect_contest/{sweep}all.log",
    benchmark:
        "<timings>/collect_contest/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        studies=lambda w: [study.report(model, scope(w)) for model in study.models(scope(w))],
        bounds=BOUNDS,
        code=code("collect_contest"),
    script:
        "../scripts/collect_contest.py"


rule collect_trials:
    """List the settings tried in a sweep of trials, with the one of each method that validation chose."""
    input:
        training=lambda w: [at(row, "training.csv") for row, _ in trial_searches(scope(w))],
        verdicts=lambda w: [at(row, f"verdicts/{bundle}.{JUDGE_NAME}.csv") for row, bundle in trial_answers(scope(w))],
        searches=lambda w: search_tables(trial_searches(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}trials.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "trials"},
        ),
    log:
        "<logs>/collect_trials/{sweep}all.log",
    benchmark:
        "<timings>/collect_trials/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        rows=lambda w: [row for row, _ in trial_searches(scope(w))],
        labels=SETS,
        bounds=BOUNDS,
        code=code("collect_trials"),
    script:
        "../scripts/collect_trials.py"


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
