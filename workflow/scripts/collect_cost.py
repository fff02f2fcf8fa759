"""Seconds, peak memory and generated tokens of every job: tables/cost.csv.

input: answers (list of answer files, may be empty; anything else only makes the rule wait); params: timings (the
folder of Snakemake's benchmark files, `{rule}/.../{job}.tsv`), rows (list of dicts run, model, method, parent,
seed of all runs), answers (list of the jobs that made input.answers, as `{rule}/.../{job}` below the folder);
output: table (csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.listing import cost_table, generated_tokens

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    tokens = generated_tokens(source.get("answers", []), params.get("answers", []))
    write_csv(cost_table(params.timings, params.rows, tokens), snakemake.output.table)
