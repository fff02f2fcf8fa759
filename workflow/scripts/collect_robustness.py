"""Half-compliance budgets, their ratios, and DSR at the fixed budgets."""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.curves import table_inputs
from es2.tables.robustness import robustness_table

with job(snakemake):
    write_csv(robustness_table(*table_inputs(snakemake)), snakemake.output.table)
