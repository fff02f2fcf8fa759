"""Bring one source of the config to its file, with a note beside it of where it came from."""

from es2.prompts.sources import fetch
from es2.scripting import job

with job(snakemake):
    fetch(snakemake.params.name, snakemake.params.cfg, snakemake.output[0])
