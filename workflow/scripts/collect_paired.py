"""Paired differences between runs, Holm-adjusted over all but the primary endpoint."""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.curves import table_inputs
from es2.tables.paired import paired_table

with job(snakemake):
    write_csv(paired_table(*table_inputs(snakemake)), snakemake.output.table)
