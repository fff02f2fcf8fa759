"""Draw which layer's direction an ablation needs, and how far each run turned it."""

from es2.layers import layers_of_runs
from es2.plots.directions import directions_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source = snakemake.input
    changed = layers_of_runs(snakemake.params.changed, source.layers)
    figure = directions_figure(read_table(source.directions), Study.from_params(snakemake.params.cfg), changed)
    save(figure, snakemake.output.svg, snakemake.output.png)
