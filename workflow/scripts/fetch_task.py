"""Bring the questions of one task of lm-evaluation-harness into the datasets cache, with a note of what came."""

from es2.files import write_json
from es2.hub_tasks import fetch_task
from es2.scripting import job

with job(snakemake):
    write_json(snakemake.output.note, fetch_task(snakemake.params.name))
