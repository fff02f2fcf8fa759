"""Run lm-evaluation-harness on one run's model in memory."""

from es2.ability import evaluate, tasks_from_config
from es2.files import write_json
from es2.models import load_run
from es2.scripting import job

with job(snakemake):
    cfg = snakemake.params.cfg
    sources = dict(zip(snakemake.params.source_names, snakemake.input.sources, strict=True))
    tasks = tasks_from_config(cfg["ability"]["tasks"], sources)
    lm = load_run(snakemake.input.model, snakemake.input.adapter, cfg["model"])
    write_json(snakemake.output.results, evaluate(lm, tasks, cfg["ability"]["batch_rows"]))
