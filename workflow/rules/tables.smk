"""Tables: what all runs of a scope measured, one file a subject; their columns are a contract (docs/tables.md).

A scope is the main study (`sweep` empty) or a sweep (`sweep` is its name and a slash).
"""


rule collect_separability:
    """Stack the separability of all runs."""
    input:
        tables=every("separability.csv"),
    output:
        table=report(
            "<results>/tables/{sweep}separability.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "separability"},
        ),
    log:
        "<logs>/collect_separability/{sweep}all.log",
    benchmark:
        "<timings>/collect_separability/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        rows=every_row(),
        code=code("collect_separability"),
    script:
        "../scripts/collect_separability.py"


rule collect_training:
    """Stack the training curves of all trained runs."""
    input:
        tables=every("training.csv", is_finetuned),
    output:
        table=report(
            "<results>/tables/{sweep}training.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "training"},
        ),
    log:
        "<logs>/collect_training/{sweep}all.log",
    benchmark:
        "<timings>/collect_training/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        rows=every_row(is_finetuned),
        code=code("collect_training"),
    script:
        "../scripts/collect_training.py"


rule collect_verdicts:
    """List every verdict by the hash of its prompt, without text, so that others can pair statistics anew."""
    input:
        verdicts=lambda w: verdicts(scope(w)),
    output:
        table=report(
            "<results>/tables/{sweep}verdicts.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "verdicts"},
        ),
    log:
        "<logs>/collect_verdicts/{sweep}all.log",
    benchmark:
        "<timings>/collect_verdicts/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code("collect_verdicts"),
    script:
        "../scripts/collect_verdicts.py"


rule collect_dsr:
    """Refusal, compliance and degenerate shares of every run under every attack, with intervals."""
    input:
        verdicts=lambda w: verdicts(scope(w)),
        searches=lambda w: search_tables(comparing(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}dsr.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "dsr"},
        ),
    log:
        "<logs>/collect_dsr/{sweep}all.log",
    benchmark:
        "<timings>/collect_dsr/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study.comparisons(),
        searches=lambda w: searchers(comparing(scope(w))),
        code=code("collect_dsr"),
    script:
        "../scripts/collect_dsr.py"


rule collect_robustness:
    """Half-compliance budgets, their ratios, and DSR at the budgets fixed on validation."""
    input:
        verdicts=lambda w: verdicts(scope(w)),
        searches=lambda w: search_tables(comparing(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}robustness.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "robustness"},
        ),
    log:
        "<logs>/collect_robustness/{sweep}all.log",
    benchmark:
        "<timings>/collect_robustness/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study.comparisons(),
        searches=lambda w: searchers(comparing(scope(w))),
        code=code("collect_robustness"),
    script:
        "../scripts/collect_robustness.py"


rule collect_paired:
    """Differences between runs on the same prompts, Holm-adjusted over all but the primary endpoint."""
    input:
        verdicts=lambda w: verdicts(scope(w)),
        searches=lambda w: search_tables(comparing(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}paired.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "paired"},
        ),
    log:
        "<logs>/collect_paired/{sweep}all.log",
    benchmark:
        "<timings>/collect_paired/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study.comparisons(),
        searches=lambda w: searchers(comparing(scope(w))),
        code=code("collect_paired"),
    script:
        "../scripts/collect_paired.py"


rule collect_seeds:
    """The same over several trainings, prompts and trainings both drawn; empty where each run has one seed."""
    input:
        verdicts=lambda w: verdicts(scope(w)),
        searches=lambda w: search_tables(comparing(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}seeds.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "seeds"},
        ),
    log:
        "<logs>/collect_seeds/{sweep}all.log",
    benchmark:
        "<timings>/collect_seeds/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study.comparisons(),
        searches=lambda w: searchers(comparing(scope(w))),
        code=code("collect_seeds"),
    script:
        "../scripts/collect_seeds.py"


rule collect_ability:
    """Ability, drift and over-refusal of every run, against its base and its parent."""
    input:
        drift=every("drift.csv"),
        lm_eval=every("lm_eval.json"),
        verdicts=lambda w: verdicts(scope(w)),
    output:
        table=report(
            "<results>/tables/{sweep}ability.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "ability"},
        ),
    log:
        "<logs>/collect_ability/{sweep}all.log",
    benchmark:
        "<timings>/collect_ability/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study.comparisons(),
        rows=every_row(),
        code=code("collect_ability"),
    script:
        "../scripts/collect_ability.py"


rule collect_settings:
    """Every setting, hash and version that the figures depend on, one row a value."""
    input:
        documents=lambda w: [path for path, _ in documents(scope(w))],
        searches=lambda w: search_tables(adapted(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}settings.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "settings"},
        ),
    log:
        "<logs>/collect_settings/{sweep}all.log",
    benchmark:
        "<timings>/collect_settings/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        facts=lambda w: settings_facts(scope(w)),
        documents=lambda w: [about for _, about in documents(scope(w))],
        searches=lambda w: searchers(adapted(scope(w))),
        judges={name: study.config.judges[name].model_dump() for name in study.config.select.judges},
        packages=PACKAGES,
        code=code("collect_settings", JUDGE_MODULES),
    script:
        "../scripts/collect_settings.py"


rule collect_cost:
    """Seconds, peak memory and generated tokens of every job; made last, from Snakemake's benchmark files."""
    input:
        answers=answers(""),
        waits=[
            "<results>/tables/ability.csv",
            "<results>/tables/dsr.csv",
            *[at(row, "merged/check.json") for row in study.rows(runs=study.config.release)],
        ],
    output:
        table=report(
            "<results>/tables/cost.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "cost"},
        ),
    log:
        "<logs>/collect_cost/all.log",
    benchmark:
        "<timings>/collect_cost/all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        timings=f"{RESULTS}/timings",
        rows=study.rows(),
        answers=[f"generate_answers/{at(row, bundle).removeprefix(MODELS)}" for row, bundle in evaluated("")],
        code=code("collect_cost"),
    script:
        "../scripts/collect_cost.py"
