"""Draw the robustness curve, the study's headline."""

from es2.plots.robustness import robustness_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, out = snakemake.input, snakemake.output
    study = Study.from_params(snakemake.params.cfg)
    figure = robustness_figure(read_table(source.dsr), read_table(source.robustness), study)
    save(figure, out.svg, out.png)
