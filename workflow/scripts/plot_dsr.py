"""Draw the defence success rates by attack and run."""

from es2.plots.dsr import dsr_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, out = snakemake.input, snakemake.output
    study = Study.from_params(snakemake.params.cfg)
    figure = dsr_figure(read_table(source.dsr), read_table(source.robustness), study)
    save(figure, out.svg, out.png)
