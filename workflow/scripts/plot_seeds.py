"""Draw what several trainings of each run show, and what they show together."""

from es2.plots.seeds import seeds_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source = snakemake.input
    tables = [read_table(path) for path in (source.seeds, source.paired, source.robustness)]
    save(seeds_figure(*tables, Study.from_params(snakemake.params.cfg)), snakemake.output.svg, snakemake.output.png)
