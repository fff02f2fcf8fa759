"""Draw how runs that are set against each other fare under every attack."""

from es2.plots.rivals import rivals_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    study = Study.from_params(snakemake.params.cfg)
    save(rivals_figure(read_table(snakemake.input.rivals), study), snakemake.output.svg, snakemake.output.png)
