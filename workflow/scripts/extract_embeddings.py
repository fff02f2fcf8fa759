"""Embeddings of a run's prompts at every layer, at the last prompt token; of defence prompts for a parent only."""

from es2.embeddings import extract_pieces, save_embeddings
from es2.models import load_run
from es2.prompts.tables import read_prompt_tables, unique_texts
from es2.scripting import job

with job(snakemake):
    cfg = snakemake.params.cfg
    lm = load_run(snakemake.input.model, snakemake.input.adapter, cfg["model"])
    prompts = read_prompt_tables(snakemake.input.prompts)
    texts = unique_texts(prompts if cfg["defence"] else prompts[prompts["split"] != "defence"])
    pieces = extract_pieces(lm, list(texts.values()), cfg["extraction"]["batch_tokens"])
    about = {key: str(value) for key, value in snakemake.params.row.items()}
    save_embeddings(snakemake.output.embeddings, list(texts), pieces, template_sha256=lm.template_sha256(), **about)
