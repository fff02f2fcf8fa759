"""Two runs against each other under every attack: tables/<sweep>/rivals.csv.

input: paired, robustness (csvs of the sweep); params: studies (list of dicts, see es2.reporting.Study);
output: table (csv), page (the same as Markdown tables to read, one a model).
"""

import pandas as pd

from es2.files import write_csv, write_text
from es2.reporting import Study, markdown_page, read_table
from es2.scripting import job
from es2.tables.rivals import rivals_table, shown_rivals

with job(snakemake):
    tables = [read_table(path) for path in (snakemake.input.paired, snakemake.input.robustness)]
    studies = [Study.from_params(cfg) for cfg in snakemake.params.studies]
    found = [rivals_table(*tables, study) for study in studies]
    write_csv(pd.concat(found, ignore_index=True), snakemake.output.table)
    shown = [shown_rivals(table, study) for table, study in zip(found, studies, strict=True)]
    write_text(snakemake.output.page, markdown_page(shown, studies))
