"""Draw what each run holds against every adaptive attack, and what that costs."""

from es2.plots.contest import contest_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    study = Study.from_params(snakemake.params.cfg)
    save(contest_figure(read_table(snakemake.input.contest), study), snakemake.output.svg, snakemake.output.png)
