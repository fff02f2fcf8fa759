"""Every setting and version that the figures depend on, one row a value: tables/settings.csv.

input: documents (list of JSON files, as manifest.json and layers.json; may be empty), searches (list of search
csvs, may be empty); params: facts (list of dicts with any of run, model, method, parent, seed, attack, and
`values`, a dict), documents and searches (lists of dicts run ... seed, attack in the order of those inputs; a
document's may have `prefix`, which its keys stand under, and `keys`, the only ones told), judges (config rows by
name), packages (names whose versions are told); output: table (csv).
"""

import pandas as pd

from es2.files import write_csv
from es2.judges.registry import load_judge
from es2.scripting import job
from es2.tables.listing import chosen_settings, document_settings, package_versions, settings_table

with job(snakemake):
    source, params = snakemake.input, snakemake.params
    items = list(params.facts)
    for path, row in zip(source.get("documents", []), params.get("documents", []), strict=True):
        items.append(document_settings(path, row))
    for path, row in zip(source.get("searches", []), params.get("searches", []), strict=True):
        items.append({**row, "values": chosen_settings(pd.read_csv(path))})
    judges = {name: load_judge(row) for name, row in params.get("judges", {}).items()}
    items.append({"values": {"judges": {n: {"kind": j.kind, "version": j.version} for n, j in judges.items()}}})
    items.append({"values": {"packages": package_versions(params.get("packages", []))}})
    write_csv(settings_table(items), snakemake.output.table)
