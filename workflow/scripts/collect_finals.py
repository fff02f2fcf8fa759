"""What a contest's attackers found on validation, and the run of each method they choose: tables/<sweep>finals.csv.

input: searches (csvs, one an attack on a run); params: rows (dicts run ... seed, attack, in that order); output: table.
"""

import pandas as pd

from es2.files import write_csv
from es2.scripting import job
from es2.tables.finals import finals_table

with job(snakemake):
    searches = [pd.read_csv(path) for path in snakemake.input.searches]
    write_csv(finals_table(snakemake.params.rows, searches), snakemake.output.table)
