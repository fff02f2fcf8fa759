"""Refusal, compliance and degenerate shares of every run under every attack."""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.curves import table_inputs
from es2.tables.dsr import dsr_table

with job(snakemake):
    write_csv(dsr_table(*table_inputs(snakemake)), snakemake.output.table)
