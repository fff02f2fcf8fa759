"""The settings tried for each method and the chosen one: tables/<sweep>/trials.csv.

input: training, verdicts, parents (verdicts of what each starts from), searches (lists of csvs, one a trial), others
(such a list for each attack without a budget); params: rows (dicts run ... seed, in that order), others (the attack of
each of that name), labels (prompt set -> harmful or safe), bounds; output: table (csv).
"""

import pandas as pd

from es2.files import write_csv
from es2.scripting import job
from es2.tables.trials import trials_table

with job(snakemake):
    read = [
        [pd.read_csv(path) for path in paths]
        for paths in (
            snakemake.input.training,
            snakemake.input.verdicts,
            snakemake.input.parents,
            snakemake.input.searches,
        )
    ]
    others: dict[str, list[pd.DataFrame]] = {}
    for attack, path in zip(snakemake.params.others, snakemake.input.get("others", []), strict=True):
        others.setdefault(attack, []).append(pd.read_csv(path))
    table = trials_table(snakemake.params.rows, *read, snakemake.params.labels, snakemake.params.bounds, others)
    write_csv(table, snakemake.output.table)
