"""Draw robust DSR against what it costs in KL, ability and refused harmless requests."""

from es2.plots.pareto import pareto_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, study = snakemake.input, Study.from_params(snakemake.params.cfg)
    figure = pareto_figure(read_table(source.contest), read_table(source.ability), study)
    save(figure, snakemake.output.svg, snakemake.output.png)
