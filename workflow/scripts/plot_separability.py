"""Draw separability by layer."""

from es2.layers import layers_of_runs
from es2.plots.separability import separability_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, out, params = snakemake.input, snakemake.output, snakemake.params
    changed = layers_of_runs(params.changed, source.layers)
    save(separability_figure(read_table(source.separability), Study.from_params(params.cfg), changed), out.svg, out.png)
