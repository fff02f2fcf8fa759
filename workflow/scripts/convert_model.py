"""Bring one model into the study's folder form, with a manifest of hashes."""

from pathlib import Path

from es2.convert import convert
from es2.scripting import job

with job(snakemake, owns=Path(snakemake.output.manifest).parent):
    convert(
        snakemake.params.name,
        snakemake.params.cfg,
        snakemake.input.source,
        Path(snakemake.output.manifest).parent,
    )
