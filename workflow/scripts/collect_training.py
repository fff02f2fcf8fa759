"""One table of the training curves of all trained runs: tables/training.csv.

input: tables (list of the runs' training.csv); params: rows (list of dicts run, model, method, parent, seed, in the
order of input.tables); output: table (csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.listing import stacked

with job(snakemake):
    write_csv(stacked(snakemake.input.tables, snakemake.params.rows), snakemake.output.table)
