"""Figures: tables -> SVG with a PNG twin, one of each kind a model and scope."""


rule plot_separability:
    """Separability by layer, each run against the base."""
    input:
        separability="<results>/tables/{sweep}separability.csv",
        layers=lambda w: [auto_layers(row) for row in changing(w)],
    output:
        svg=report(
            "<results>/figures/{sweep}separability.{model}.svg",
            caption="../report/separability.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "separability"},
        ),
        png="<results>/figures/{sweep}separability.{model}.png",
    log:
        "<logs>/plot_separability/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_separability/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        changed=lambda w: study.changed_layers(scope(w)),
        code=code("plot_separability"),
    script:
        "../scripts/plot_separability.py"


rule plot_projection:
    """Harmful and safe embeddings in two dimensions, before and after, on common axes."""
    input:
        embeddings=lambda w: [at(row, "embeddings.safetensors") for row in first_seed(w)],
        prompts=prompts(),
        layers=lambda w: main_layers(w.model),
    output:
        svg=report(
            "<results>/figures/{sweep}projection.{model}.svg",
            caption="../report/projection.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "projection"},
        ),
        png="<results>/figures/{sweep}projection.{model}.png",
    log:
        "<logs>/plot_projection/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_projection/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        runs=lambda w: [row["run"] for row in first_seed(w)],
        cfg=study_of,
        code=code("plot_projection"),
    script:
        "../scripts/plot_projection.py"


rule plot_training:
    """Loss, separation and drift along the training steps."""
    input:
        training="<results>/tables/{sweep}training.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}training.{model}.svg",
            caption="../report/training.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "training"},
        ),
        png="<results>/figures/{sweep}training.{model}.png",
    log:
        "<logs>/plot_training/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_training/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_training"),
    script:
        "../scripts/plot_training.py"


rule plot_robustness:
    """Refusal, compliance and degenerate answers against the attacker's budget: the headline."""
    input:
        dsr="<results>/tables/{sweep}dsr.csv",
        robustness="<results>/tables/{sweep}robustness.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}robustness.{model}.svg",
            caption="../report/robustness.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "robustness"},
        ),
        png="<results>/figures/{sweep}robustness.{model}.png",
    log:
        "<logs>/plot_robustness/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_robustness/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_robustness"),
    script:
        "../scripts/plot_robustness.py"


rule plot_dsr:
    """Defence success rate by attack and run, with intervals."""
    input:
        dsr="<results>/tables/{sweep}dsr.csv",
        robustness="<results>/tables/{sweep}robustness.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}dsr.{model}.svg",
            caption="../report/dsr.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "dsr"},
        ),
        png="<results>/figures/{sweep}dsr.{model}.png",
    log:
        "<logs>/plot_dsr/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_dsr/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_dsr"),
    script:
        "../scripts/plot_dsr.py"


rule plot_dose_response:
    """Half-compliance budget against achieved separation."""
    input:
        separability="<results>/tables/{sweep}separability.csv",
        robustness="<results>/tables/{sweep}robustness.csv",
        dsr="<results>/tables/{sweep}dsr.csv",
        layers=lambda w: [auto_layers(row) for row in trainings(w)],
    output:
        svg=report(
            "<results>/figures/{sweep}dose_response.{model}.svg",
            caption="../report/dose_response.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "dose response"},
        ),
        png="<results>/figures/{sweep}dose_response.{model}.png",
    log:
        "<logs>/plot_dose_response/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_dose_response/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        trained=lambda w: [(row["run"], row["seed"], study.layers(row["run"])) for row in trainings(w)],
        code=code("plot_dose_response"),
    script:
        "../scripts/plot_dose_response.py"


rule plot_seeds:
    """What several trainings of each run show, and what they show together."""
    input:
        seeds="<results>/tables/{sweep}seeds.csv",
        paired="<results>/tables/{sweep}paired.csv",
        robustness="<results>/tables/{sweep}robustness.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}seeds.{model}.svg",
            caption="../report/seeds.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "seeds"},
        ),
        png="<results>/figures/{sweep}seeds.{model}.png",
    log:
        "<logs>/plot_seeds/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_seeds/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_seeds"),
    script:
        "../scripts/plot_seeds.py"


rule plot_tradeoff:
    """Safety against ability."""
    input:
        dsr="<results>/tables/{sweep}dsr.csv",
        robustness="<results>/tables/{sweep}robustness.csv",
        ability="<results>/tables/{sweep}ability.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}tradeoff.{model}.svg",
            caption="../report/tradeoff.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "tradeoff"},
        ),
        png="<results>/figures/{sweep}tradeoff.{model}.png",
    log:
        "<logs>/plot_tradeoff/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_tradeoff/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_tradeoff"),
    script:
        "../scripts/plot_tradeoff.py"


rule plot_balance:
    """Refusals of harmful requests against refusals of harmless ones, without an attack."""
    input:
        dsr="<results>/tables/{sweep}dsr.csv",
    output:
        svg=report(
            "<results>/figures/{sweep}balance.{model}.svg",
            caption="../report/balance.rst",
            category="Figures",
            subcategory="{model}",
            labels={"figure": "balance"},
        ),
        png="<results>/figures/{sweep}balance.{model}.png",
    log:
        "<logs>/plot_balance/{sweep}{model}.log",
    benchmark:
        "<timings>/plot_balance/{sweep}{model}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        cfg=study_of,
        code=code("plot_balance"),
    script:
        "../scripts/plot_balance.py"


rule plot_cost:
    """Time by rule."""
    input:
        cost="<results>/tables/cost.csv",
    output:
        svg=report(
            "<results>/figures/cost.svg",
            caption="../report/cost.rst",
            category="Figures",
            labels={"figure": "cost"},
        ),
        png="<results>/figures/cost.png",
    log:
        "<logs>/plot_cost/all.log",
    benchmark:
        "<timings>/plot_cost/all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=code("plot_cost"),
    script:
        "../scripts/plot_cost.py"
