"""Draw refusals of harmful requests against refusals of harmless ones."""

from es2.plots.balance import balance_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    study = Study.from_params(snakemake.params.cfg)
    save(balance_figure(read_table(snakemake.input.dsr), study), snakemake.output.svg, snakemake.output.png)
