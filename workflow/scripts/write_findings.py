"""Write the first page: five sentences, the main table and the targets, as text and as tables."""

import pandas as pd

from es2.files import write_csv, write_text
from es2.findings import findings_frame, make_page, to_html, to_rst
from es2.reporting import Study, trained_layers
from es2.scripting import job
from es2.summary import read_tables

with job(snakemake):
    source, out = snakemake.input, snakemake.output
    tables = read_tables(source)
    pages = [
        make_page(tables, Study.from_params(cfg), trained_layers(cfg, path))
        for cfg, path in zip(snakemake.params.cfg["studies"], source.layers, strict=True)
    ]
    write_text(out.rst, to_rst(pages))
    write_text(out.html, to_html(pages))
    write_csv(findings_frame(pages), out.findings)
    write_csv(pd.concat([page.main for page in pages]), out.main)
    write_csv(pd.concat([page.targets for page in pages]), out.targets)
