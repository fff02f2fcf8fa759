"""Give every answer of one bundle its verdict (es2.judges); the table holds no text.

input: answers (jsonl), prompts (list of prompt parquets that hold the benchmarks); params: judge (the judge's
config row, `{kind: keyword}`), name (its key in the config), row (run, model, method, parent, seed of the run
that answered); output: verdicts (csv).
"""

import pandas as pd

from es2.files import read_jsonl, write_csv
from es2.judges.answers import judge_answers
from es2.judges.registry import load_judge
from es2.scripting import job

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    prompts = [pd.read_parquet(path, columns=["prompt_id", "prompt", "cluster"]) for path in source.prompts]
    verdicts = judge_answers(read_jsonl(source.answers), prompts, load_judge(params.judge), params.row, params.name)
    write_csv(verdicts, snakemake.output.verdicts)
