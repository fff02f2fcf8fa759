"""Every verdict, by the hash of its prompt and without text, so that others can pair statistics anew.

input: verdicts (list of verdict csvs); output: table (tables/verdicts.csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.verdicts import listed, read_verdicts

with job(snakemake):
    write_csv(listed(read_verdicts(snakemake.input.verdicts)), snakemake.output.table)
