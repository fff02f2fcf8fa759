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


rule collect_rivals:
    """Set runs against each other under every attack: what separation adds to a rival, and a rival to it."""
    input:
        paired="<results>/tables/{sweep}paired.csv",
        robustness="<results>/tables/{sweep}robustness.csv",
    output:
        table=report(
            "<results>/tables/{sweep}rivals.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "rivals"},
        ),
        page="<results>/tables/{sweep}rivals.md",
    log:
        "<logs>/collect_rivals/{sweep}all.log",
    benchmark:
        "<timings>/collect_rivals/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        studies=lambda w: [study.report(model, scope(w)) for model in study.models(scope(w))],
        code=code("collect_rivals"),
    script:
        "../scripts/collect_rivals.py"


rule collect_trials:
    """List the settings tried in a sweep of trials, with the one of each method that validation chose."""
    input:
        training=lambda w: [at(row, "training.csv") for row, _ in trial_searches(scope(w))],
        verdicts=lambda w: [at(row, f"verdicts/{bundle}.{JUDGE_NAME}.csv") for row, bundle in trial_answers(scope(w))],
        parents=lambda w: [
            at(parent_row(row), f"verdicts/{bundle}.{JUDGE_NAME}.csv") for row, bundle in trial_answers(scope(w))
        ],
        searches=lambda w: search_tables(trial_searches(scope(w))),
        others=lambda w: search_tables(other_searches(scope(w))),
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
        others=lambda w: [row["attack"] for row in searchers(other_searches(scope(w)))],
        labels=SETS,
        bounds=BOUNDS,
        code=code("collect_trials"),
    script:
        "../scripts/collect_trials.py"


rule collect_finals:
    """Measure the runs of a contest on validation by its own attackers, and tell which run of each method they choose."""
    input:
        searches=lambda w: search_tables(over_budgets(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}finals.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "finals"},
        ),
    log:
        "<logs>/collect_finals/{sweep}all.log",
    benchmark:
        "<timings>/collect_finals/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        rows=lambda w: searchers(over_budgets(scope(w))),
        code=code("collect_finals"),
    script:
        "../scripts/collect_finals.py"


rule collect_attack_cost:
    """Tell what each attack on each run took: answers, tokens, seconds, memory."""
    input:
        answers=lambda w: answers(scope(w)),
        searches=lambda w: search_tables(evaluated(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}attack_cost.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "attack_cost"},
        ),
    log:
        "<logs>/collect_attack_cost/{sweep}all.log",
    benchmark:
        "<timings>/collect_attack_cost/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        rows=lambda w: searchers(evaluated(scope(w))),
        timings=lambda w: benchmark_files(evaluated(scope(w))),
        gradients=GRADIENTS,
        code=code("collect_attack_cost"),
    script:
        "../scripts/collect_attack_cost.py"


rule collect_searches:
    """List all that the attackers of a sweep tried on validation, and what each took."""
    input:
        searches=lambda w: search_tables(searched(scope(w))),
    output:
        table=report(
            "<results>/tables/{sweep}searches.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "searches"},
        ),
    log:
        "<logs>/collect_searches/{sweep}all.log",
    benchmark:
        "<timings>/collect_searches/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        rows=lambda w: searchers(searched(scope(w))),
        code=code("collect_searches"),
    script:
        "../scripts/collect_searches.py"


rule plot_contest:
    """What each run holds against every adaptive attack, and what that costs."""
    input:
        contest="<results>/tables/{sweep}contest.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}contest.{model}.svg",
            caption="../report/contest.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "contest"},
        ),
        png="<results>/figures/{sweep}contest.{model}.png",
    log:
        "<logs>/plot_contest/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_contest/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_contest"),
    script:
        "../scripts/plot_contest.py"


rule plot_rivals:
    """Two runs against each other under every attack."""
    input:
        rivals="<results>/tables/{sweep}rivals.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}rivals.{model}.svg",
            caption="../report/rivals.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "rivals"},
        ),
        png="<results>/figures/{sweep}rivals.{model}.png",
    log:
        "<logs>/plot_rivals/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_rivals/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_rivals"),
    script:
        "../scripts/plot_rivals.py"


rule plot_trials:
    """What was tried on validation for each method, with the bounds and the choice."""
    input:
        trials="<results>/tables/{sweep}trials.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}trials.{model}.svg",
            caption="../report/trials.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "trials"},
        ),
        png="<results>/figures/{sweep}trials.{model}.png",
    log:
        "<logs>/plot_trials/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_trials/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        bounds=BOUNDS,
        code=code("plot_trials"),
    script:
        "../scripts/plot_trials.py"


rule plot_pareto:
    """Robust DSR against what it costs."""
    input:
        contest="<results>/tables/{sweep}contest.csv",
        ability="<results>/tables/{sweep}ability.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}pareto.{model}.svg",
            caption="../report/pareto.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "pareto"},
        ),
        png="<results>/figures/{sweep}pareto.{model}.png",
    log:
        "<logs>/plot_pareto/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_pareto/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_pareto"),
    script:
        "../scripts/plot_pareto.py"
