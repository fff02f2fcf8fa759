"""Draw which layer's direction an ablation needs, and how far each run turned it."""

from es2.plots.directions import directions_figure
from es2.plots.style import save
from es2.reporting import Study, read_table, trained_layers
from es2.scripting import job

with job(snakemake):
    cfg = snakemake.params.cfg
    layers = trained_layers(cfg, snakemake.input.layers)
    figure = directions_figure(read_table(snakemake.input.directions), Study.from_params(cfg), layers)
    save(figure, snakemake.output.svg, snakemake.output.png)
