"""How each run holds against all adaptive attacks, and at what cost: tables/<sweep>/contest.csv.

input: dsr, robustness, training (csvs of the sweep); params: studies (list of dicts, see es2.reporting.Study), bounds;
output: table (csv), page (the same as Markdown tables to read, one a model).
"""

import pandas as pd

from es2.files import write_csv, write_text
from es2.reporting import Study, markdown_page, read_table
from es2.scripting import job
from es2.tables.contest import contest_table, shown_contest

with job(snakemake):
    source = snakemake.input
    tables = [read_table(path) for path in (source.dsr, source.robustness, source.training)]
    studies = [Study.from_params(cfg) for cfg in snakemake.params.studies]
    found = [contest_table(*tables, study, snakemake.params.bounds) for study in studies]
    write_csv(pd.concat(found, ignore_index=True), snakemake.output.table)
    shown = [shown_contest(table, study) for table, study in zip(found, studies, strict=True)]
    write_text(snakemake.output.page, markdown_page(shown, studies))
