"""Bring a model of the hub into the Hugging Face cache, with a note of what came."""

from es2.files import write_json
from es2.hub_models import fetch_model
from es2.scripting import job

with job(snakemake):
    write_json(snakemake.output.note, fetch_model(snakemake.params.name, snakemake.params.cfg))
