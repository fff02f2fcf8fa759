"""Draw time by rule."""

from es2.plots.cost import cost_figure
from es2.plots.style import save
from es2.reporting import read_table
from es2.scripting import job

with job(snakemake):
    save(cost_figure(read_table(snakemake.input.cost)), snakemake.output.svg, snakemake.output.png)
