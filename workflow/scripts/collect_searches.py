"""All that the attackers of a scope tried on validation: tables/<sweep>searches.csv.

input: searches (csv), one a job; params: rows (dicts run ... seed, attack, in that order); output: table (csv).
"""

import pandas as pd

from es2.files import write_csv
from es2.scripting import job
from es2.tables.searches import searches_table

with job(snakemake):
    searches = [pd.read_csv(path) for path in snakemake.input.searches]
    write_csv(searches_table(snakemake.params.rows, searches), snakemake.output.table)
