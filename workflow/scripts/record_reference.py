"""A parent's own answers to the prompts that its children learn from and are measured on, with its states."""

from es2.judges.registry import load_judge
from es2.models import load_run
from es2.progress import progress
from es2.prompts.tables import read_prompt_tables, unique_texts
from es2.reference import record, reference_prompts, save_references
from es2.scripting import job

with job(snakemake):
    cfg = snakemake.params.cfg
    lm = load_run(snakemake.input.model, snakemake.input.adapter, cfg["model"])
    prompts = read_prompt_tables(snakemake.input.prompts)
    texts = unique_texts(reference_prompts(prompts, cfg["sets"], cfg["reference"]))
    judge = load_judge(cfg["judge"]).judge
    with progress("answers", len(texts)) as advance:
        references = record(lm, texts, judge, cfg["reference"]["answer_tokens"], cfg["batch_rows"], advance)
    save_references(snakemake.output.answers, snakemake.output.states, references)
