"""Which layer's direction an ablation needs, and how far a run turned it: tables/<sweep>directions.csv.

input: searches (csv), own and parents (embeddings), a file of each a job, and prompts (parquet); params: rows (dicts
run ... seed, attack, in that order), sets (those that the attacker fits on); output: table (csv).
"""

import pandas as pd

from es2.embeddings import load_embeddings
from es2.files import write_csv
from es2.prompts.tables import read_prompt_tables
from es2.scripting import job
from es2.tables.directions import directions_table

with job(snakemake):
    source = snakemake.input
    prompts = read_prompt_tables(source.prompts)
    fitted = prompts[(prompts["split"] == "attack") & prompts["set"].isin(snakemake.params.sets)]
    table = directions_table(
        snakemake.params.rows,
        [pd.read_csv(path) for path in source.searches],
        [load_embeddings(path) for path in source.own],
        [load_embeddings(path) for path in source.parents],
        fitted,
    )
    write_csv(table, snakemake.output.table)
