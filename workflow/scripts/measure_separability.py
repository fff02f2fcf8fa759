"""Fit the probes of one run, choose its layers, and measure its separability (es2.separability)."""

import pandas as pd

from es2.embeddings import load_embeddings
from es2.files import write_csv, write_json
from es2.scripting import job
from es2.separability import Settings, measure

with job(snakemake):
    settings = Settings.of(snakemake.params.cfg)
    measured = measure(
        embeddings=load_embeddings(snakemake.input.embeddings),
        base=load_embeddings(snakemake.input.base),
        prompts=pd.concat(map(pd.read_parquet, snakemake.input.prompts)),
        settings=settings,
        seed=snakemake.params.seed,
    )
    measured.probes.save(snakemake.output.probes)
    write_json(
        snakemake.output.layers,
        {
            "layers": measured.layers,
            "rule": settings.layers.sentence(),
            "validation_d_prime": measured.validation_d_prime,
        },
    )
    table = measured.table
    for place, (column, value) in enumerate(snakemake.params.row.items()):
        table.insert(place, column, value)
    write_csv(table, snakemake.output.table)
