"""What each run can still do and how far it moved, against base and parent: tables/ability.csv.

input: drift (list of drift csvs), lm_eval (list of lm_eval.json, may be empty), verdicts (list of verdict csvs
with the direct request on the safe sets); params: rows (list of dicts run, model, method, parent, seed, in the
order of input.drift and of input.lm_eval), cfg (dict of es2.tables.verdicts.Settings: harmful, safe); output: table
(csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.ability import ability_table, chance_rows, sample_frame
from es2.tables.verdicts import Settings, read_verdicts

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    settings = Settings.from_params(params.cfg)
    drift = list(zip(source.drift, params.rows, strict=True))
    scored = source.get("lm_eval", [])
    asked = list(zip(scored, params.rows, strict=True)) if scored else []
    samples = sample_frame(drift, asked, read_verdicts(source.verdicts), settings)
    write_csv(ability_table(samples, chance_rows(asked), settings), snakemake.output.table)
