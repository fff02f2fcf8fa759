"""How far the judges agree about the same answers.

input: verdicts (list of verdict csvs of all judges); params: seed (of the bootstrap); output: table (csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.judges import judges_table
from es2.tables.verdicts import read_verdicts

with job(snakemake):
    write_csv(judges_table(read_verdicts(snakemake.input.verdicts), snakemake.params.seed), snakemake.output.table)
