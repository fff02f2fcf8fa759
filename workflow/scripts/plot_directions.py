"""Draw which layer's direction an ablation needs, and how far each run turned it."""

from es2.layers import chosen_layers
from es2.plots.directions import directions_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, given = snakemake.input, snakemake.params.changed
    changed = {run: chosen_layers(given[run], path) for run, path in zip(given, source.layers, strict=True)}
    figure = directions_figure(read_table(source.directions), Study.from_params(snakemake.params.cfg), changed)
    save(figure, snakemake.output.svg, snakemake.output.png)
