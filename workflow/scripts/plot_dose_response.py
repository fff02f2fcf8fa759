"""Draw half-compliance budget against achieved separation."""

from es2.layers import layers_of_runs
from es2.plots.dose_response import dose_points, dose_response_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, out, params = snakemake.input, snakemake.output, snakemake.params
    study = Study.from_params(params.cfg)
    tables = [read_table(path) for path in (source.separability, source.robustness, source.dsr)]
    layers = layers_of_runs({(run, seed): given for run, seed, given in params.trained}, source.layers)
    save(dose_response_figure(dose_points(*tables, study, layers), study), out.svg, out.png)
