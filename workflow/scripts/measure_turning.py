"""At which token a run leaves its parent's refusals under the ablation that its attacker chose.

input: model, adapter, prompts, embeddings (the run's own), search (csv), answers and states (the parent's reference);
params: cfg (model, sets that the attacker fits on); output: table (csv).
"""

import pandas as pd

from es2.embeddings import extract_last, harmful_of, load_embeddings, unit_difference
from es2.files import write_csv
from es2.models import load_run
from es2.prompts.tables import read_prompt_tables
from es2.reference import load_references, of_prompts
from es2.scripting import job
from es2.tables.directions import chosen_direction, directions
from es2.turning import measure_turning, refusals_of

with job(snakemake):
    source, cfg = snakemake.input, snakemake.params.cfg
    prompts = read_prompt_tables(source.prompts)
    fitted = prompts[(prompts["split"] == "attack") & prompts["set"].isin(cfg["attacker_sets"])]
    learned = prompts[(prompts["split"] == "defence") & (prompts["label"] == "harmful")]
    layer, earlier = chosen_direction(pd.read_csv(source.search))
    lm = load_run(source.model, source.adapter, cfg["model"])
    refusals = refusals_of(of_prompts(load_references(source.answers, source.states), learned))
    if earlier == 0:
        units = directions(load_embeddings(source.embeddings), fitted)
    else:
        tokens = lm.chat_tokens(fitted["prompt"].tolist())
        units = unit_difference(extract_last(lm, tokens, earlier + 1)[earlier], harmful_of(fitted))
    table = measure_turning(lm, refusals, units[layer]).assign(layer=layer, earlier=earlier)
    write_csv(table, snakemake.output.table)
