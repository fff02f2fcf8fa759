"""Fold a released run's adapter into its base, and check that the merged model behaves as the adapter did."""

from pathlib import Path

from es2.files import read_json, write_json
from es2.merge import check, check_base, choose_prompts, merge
from es2.prompts.tables import read_prompt_tables
from es2.scripting import job

with job(snakemake, owns=Path(snakemake.output.weights).parent):
    source, output, cfg = snakemake.input, snakemake.output, snakemake.params.cfg
    wanted = cfg["merge"]
    base, adapter, merged = (Path(file).parent for file in (source.model, source.adapter[0], output.weights))
    check_base(adapter, read_json(source.model)["model"])
    merge(base, adapter, merged)
    checked = check(
        base,
        adapter,
        merged,
        choose_prompts(read_prompt_tables(source.prompts), wanted["prompts"]),
        tolerance=wanted["tolerance"],
        system_prompt=cfg["model"]["system_prompt"],
        max_new_tokens=cfg["max_new_tokens"],
    )
    write_json(output.check, checked)
