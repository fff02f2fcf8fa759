"""KL, agreement and perplexity of one run against its base's and its parent's own answers to held-out safe prompts."""

import pandas as pd

from es2.drift import measure_drift
from es2.files import write_csv
from es2.models import load_run
from es2.prompts.tables import read_prompt_tables
from es2.reference import load_references, of_prompts
from es2.scripting import job

with job(snakemake):
    cfg = snakemake.params.cfg
    lm = load_run(snakemake.input.model, snakemake.input.adapter, cfg["model"])
    test = read_prompt_tables(snakemake.input.prompts).query("label == 'safe' and split == 'test'")
    files = {"base": snakemake.input.base, "parent": snakemake.input.parent}
    references = {name: of_prompts(load_references(*pair), test) for name, pair in files.items() if pair}
    drift = pd.DataFrame(measure_drift(lm, references))
    known = test.drop_duplicates("prompt_id").set_index("prompt_id")
    drift.insert(1, "prompt_set", drift["prompt_id"].map(known["set"]))
    drift.insert(2, "cluster", drift["prompt_id"].map(known["cluster"]))
    write_csv(drift, snakemake.output.table)
