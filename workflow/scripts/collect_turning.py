"""Put the runs' divergences from their parents' refusals together: tables/<sweep>turning.csv.

input: tables (csv), a file a job; params: rows (dicts run ... seed, attack, in that order); output: table (csv).
"""

import pandas as pd

from es2.files import write_csv
from es2.scripting import job
from es2.tables.verdicts import RUN, who

with job(snakemake):
    parts = [
        pd.read_csv(path).assign(**who(row), attack=row["attack"])
        for row, path in zip(snakemake.params.rows, snakemake.input.tables, strict=True)
    ]
    columns = [*RUN, "attack", "layer", "earlier", "token", "n", "kl", "kl_ablated"]
    write_csv(pd.concat(parts, ignore_index=True)[columns], snakemake.output.table)
