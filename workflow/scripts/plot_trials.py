"""Draw the trials of training settings on validation, with the bounds that they must keep to."""

from es2.plots.style import save
from es2.plots.trials import trials_figure
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    study = Study.from_params(snakemake.params.cfg)
    figure = trials_figure(read_table(snakemake.input.trials), study, snakemake.params.bounds)
    save(figure, snakemake.output.svg, snakemake.output.png)
