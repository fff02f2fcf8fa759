"""Draw the training curves."""

from es2.plots.style import save
from es2.plots.training import training_figure
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, out = snakemake.input, snakemake.output
    study = Study.from_params(snakemake.params.cfg)
    figure = training_figure(read_table(source.training), study)
    save(figure, out.svg, out.png)
