"""Half-compliance budgets, their ratios, and DSR at the fixed budgets: tables/robustness.csv.

input: verdicts (list of verdict csvs), searches (list of search csvs of the reference run, may be empty);
params: searches (list of dicts with model, run, seed, in the order of input.searches), cfg (dict of
es2.tables.verdicts.Settings: harmful, reference, control, factors, pairs, primary); output: table (csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.curves import budgets_of_models
from es2.tables.robustness import robustness_table
from es2.tables.verdicts import Settings, read_verdicts

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    settings = Settings.from_params(params.cfg)
    budgets = budgets_of_models(source.get("searches", []), params.get("searches", []), settings)
    write_csv(robustness_table(read_verdicts(source.verdicts), budgets, settings), snakemake.output.table)
