"""Draw at which token each run leaves its parent's refusals under ablation."""

from es2.plots.style import save
from es2.plots.turning import turning_figure
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    figure = turning_figure(read_table(snakemake.input.turning), Study.from_params(snakemake.params.cfg))
    save(figure, snakemake.output.svg, snakemake.output.png)
