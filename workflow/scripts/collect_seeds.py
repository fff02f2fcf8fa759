"""Differences between runs over several trainings, prompts and trainings both drawn."""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.curves import table_inputs
from es2.tables.seeds import seeds_table

with job(snakemake):
    write_csv(seeds_table(*table_inputs(snakemake)), snakemake.output.table)
