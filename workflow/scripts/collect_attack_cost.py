"""What each attack on each run took: tables/<sweep>attack_cost.csv.

input: answers (jsonl) and searches (csv), a file of each a job; params: rows (dicts run ... seed, attack, in that
order), timings (the benchmark file of each job), gradients (dict: sequences that an attack's training takes gradients
on, of those that have one); output: table (csv).
"""

from es2.files import write_csv
from es2.scripting import job
from es2.tables.attack_cost import attack_cost_table

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    table = attack_cost_table(params.rows, source.answers, source.searches, params.timings, params.gradients)
    write_csv(table, snakemake.output.table)
