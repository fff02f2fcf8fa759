"""Read the fetched sources, split all prompt sets together by near-twin cluster, and check the splits."""

from es2.files import write_csv
from es2.prompts.prepare import prepare_sets
from es2.prompts.readers import save_prompts
from es2.scripting import job

with job(snakemake):
    params, output = snakemake.params, snakemake.output
    paths = dict(zip(params.source_names, snakemake.input.sources, strict=True))
    tables, summary, checks = prepare_sets(params.sets, params.sources, paths, params.seed)
    for name, path in zip(params.set_names, output.sets, strict=True):
        save_prompts(tables[name], path)
    write_csv(summary, output.splits)
    write_csv(checks, output.checks)
