"""Fine-tune one run's adapter on its parent."""

from pathlib import Path

from es2 import registry
from es2.finetuning import finetune
from es2.lock import locked
from es2.models import load_run
from es2.scripting import job

with job(snakemake, owns=Path(snakemake.output.adapter_config).parent), locked(snakemake.params.checkpoints):
    cfg = snakemake.params.cfg
    lm = load_run(snakemake.input.model, snakemake.input.adapter, cfg["model"], merge=False)
    finetune(lm, registry.method(snakemake.params.row["method"]), cfg, snakemake)
