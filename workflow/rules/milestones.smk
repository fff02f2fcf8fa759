"""Milestones: nouns to ask Snakemake for, in the order of the paper. Workers are named verb_noun."""


rule separability:
    """How far apart the classes lie in every run."""
    input:
        "<results>/tables/separability.csv",
        expand("<results>/figures/separability.{model}.svg", model=MODELS_SELECTED),


rule training:
    """All adapters of the main study, and their training curves."""
    input:
        [at(row, file) for row in study.rows() if study.trained(row["run"]) for file in ADAPTER],
        "<results>/tables/training.csv",


rule evaluation:
    """All verdicts, drift and ability of the main study."""
    input:
        verdicts(""),
        [at(row, file) for row in study.rows() for file in ("drift.csv", "lm_eval.json")],


rule tables:
    """All tables of the main study."""
    input:
        expand("<results>/tables/{table}.csv", table=TABLES),


rule figures:
    """All figures of the main study."""
    input:
        expand("<results>/figures/{figure}.{model}.svg", figure=FIGURES, model=MODELS_SELECTED),
        "<results>/figures/cost.svg",


rule takeaway:
    """The findings, and the released models with their cards."""
    input:
        "<results>/findings.rst",
        [at(row, "merged/README.md") for row in study.rows(runs=study.config.release)],


for name in study.config.sweeps:

    rule:
        name:
            name
        input:
            sweep_outputs(name),


for name in MODELS_SELECTED:

    rule:
        name:
            f"model_{name}"
        input:
            [at(row, file) for row in study.rows() if row["model"] == name for file in files_of_run(row)],
