"""Draw half-compliance budget against achieved separation."""

from es2.layers import chosen_layers
from es2.plots.dose_response import dose_points, dose_response_figure
from es2.plots.style import save
from es2.reporting import Study, read_table
from es2.scripting import job

with job(snakemake):
    source, out, cfg = snakemake.input, snakemake.output, snakemake.params.cfg
    study = Study.from_params(cfg)
    tables = [read_table(path) for path in (source.separability, source.robustness, source.dsr)]
    given = snakemake.params.trained
    layers = {run: chosen_layers(given[run], path) for run, path in zip(given, source.layers, strict=True)}
    points = dose_points(*tables, study, layers)
    save(dose_response_figure(points, study), out.svg, out.png)
