"""One table of the separability of all runs: tables/separability.csv.

input: tables (list of the runs' separability.csv); params: rows (list of dicts run, model, method, parent, seed, in the
order of input.tables); output: table (csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.listing import stacked

with job(snakemake):
    write_csv(stacked(snakemake.input.tables, snakemake.params.rows), snakemake.output.table)
