"""Draw which layer's direction an ablation needs, and how far each run turned it."""

from es2.plots.directions import directions_figure
from es2.plots.style import save
from es2.reporting import Study, chosen_layers, read_table
from es2.scripting import job

with job(snakemake):
    cfg = snakemake.params.cfg
    changed = {run: chosen_layers(given, snakemake.input.layers) for run, given in snakemake.params.changed.items()}
    figure = directions_figure(read_table(snakemake.input.directions), Study.from_params(cfg), changed)
    save(figure, snakemake.output.svg, snakemake.output.png)
