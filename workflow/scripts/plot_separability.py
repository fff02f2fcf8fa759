"""Draw separability by layer."""

from es2.plots.separability import separability_figure
from es2.plots.style import save
from es2.reporting import Study, read_table, trained_layers
from es2.scripting import job

with job(snakemake):
    source, out, cfg = snakemake.input, snakemake.output, snakemake.params.cfg
    layers = trained_layers(cfg, source.layers)
    figure = separability_figure(read_table(source.separability), Study.from_params(cfg), layers)
    save(figure, out.svg, out.png)
