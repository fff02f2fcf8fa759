"""Write the model card of a released run, beside its merged weights."""

from es2.card import CardFacts, model_card
from es2.files import read_json, write_text
from es2.findings import make_page
from es2.layers import chosen_layers
from es2.reporting import Study, read_table, trained_layers
from es2.scripting import job
from es2.summary import read_tables

with job(snakemake):
    source, cfg, row = snakemake.input, snakemake.params.cfg, snakemake.params.row
    facts = CardFacts(
        run=row["run"],
        seed=row["seed"],
        parent=row["parent"],
        origin=cfg["origin"],
        sources=cfg["sources"],
        layers=tuple(chosen_layers(cfg["own_layers"], source.own_layers)),
        files=read_json(source.manifest)["files"],
        check=read_json(source.check),
    )
    page = make_page(read_tables(source), Study.from_params(cfg), trained_layers(cfg, source.layers))
    write_text(snakemake.output.card, model_card(facts, page, read_table(source.settings)))
