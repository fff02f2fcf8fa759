"""Draw test embeddings in two dimensions, every run on the same axes."""

import pandas as pd

from es2.plots.projection import load_clouds, projection_figure
from es2.plots.style import save
from es2.reporting import Study, trained_layers
from es2.scripting import job

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    study = Study.from_params(params.cfg)
    prompts = pd.concat([pd.read_parquet(path) for path in source.prompts], ignore_index=True)
    embeddings = dict(zip(params.runs, source.embeddings, strict=True))
    axes, clouds = load_clouds(embeddings, prompts, study, trained_layers(params.cfg, source.layers))
    save(projection_figure(axes, clouds, study), snakemake.output.svg, snakemake.output.png)
