"""Bring an adapter that others trained to where the study looks for a run's own."""

from pathlib import Path

from es2.external import bring_adapter
from es2.scripting import job

with job(snakemake):
    bring_adapter(
        snakemake.params.row["run"],
        snakemake.input.config,
        snakemake.input.weights,
        Path(snakemake.input.model).parent,
        Path(snakemake.output.adapter_config).parent,
    )
