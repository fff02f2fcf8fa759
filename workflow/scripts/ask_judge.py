"""Ask a model for its verdict on every answer of one bundle (es2.judges); the table holds no text.

input: answers (jsonl), prompts (list of prompt parquets that hold the benchmarks), model (manifest of the model that
judges; none where the judge is no model of the catalogue); params: judge (the judge's config row), name (its key in the
config), sets (the benchmarks whose answers it is shown), model (dtype and system_prompt of the model that judges, or
none), row (run, model, method, parent, seed of the run that answered); output: verdicts (csv).
"""

import sys

import pandas as pd

from es2.files import read_jsonl, write_csv
from es2.judges.answers import judge_answers
from es2.judges.registry import load_judge
from es2.scripting import job

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    prompts = [pd.read_parquet(path, columns=["prompt_id", "prompt", "cluster"]) for path in source.prompts]
    model = {"manifest": source.model[0], **params.model} if params.model else None
    answers = [answer for answer in read_jsonl(source.answers) if answer["benchmark"] in params.sets]
    verdicts = judge_answers(answers, prompts, load_judge(params.judge, model), params.row, params.name)
    write_csv(verdicts, snakemake.output.verdicts)
    print(f"{(verdicts['verdict'] == 'missing').sum()} of {len(verdicts)} verdicts are missing", file=sys.stderr)
