"""The plan: what the jobs of a dry run ask for, added up by rule."""

import io

import pytest

from es2 import plan
from es2.plan import local_rules, read, table

DRY_RUN = """
Building DAG of jobs...
[Wed Nov 25 14:39:19 2026]
localrule fetch_source:
    output: resources/sources/a.csv
    resources: tmpdir=<TBD>, mem_mb=1000, mem=1 GB, mem_mib=954, runtime=30

[Wed Nov 25 14:39:19 2026]
rule finetune:
    input: resources/models/one/manifest.json
    reason: Missing output files: results/adapter
    threads: 8
    resources: tmpdir=<TBD>, mem_mb=48000, mem_mib=45777, runtime=1200, gpu=2

rule finetune:
    resources: mem_mb=46000, runtime=600, gpu=2

rule merge_adapter:
    resources: mem_mb=60000, runtime=60, disk_mb=28000, gpu=1

localrule all:
    input: results/tables/main.csv
    resources: tmpdir=<TBD>

This was a dry-run (flag -n).
"""


def test_what_jobs_ask_for_is_added_up_by_rule():
    rules = read(DRY_RUN.splitlines())
    assert set(rules) == {"fetch_source", "finetune", "merge_adapter"}
    training = rules["finetune"]
    assert (training.jobs, training.minutes, training.gpu_minutes, training.memory_mb) == (2, 1800, 3600, 48000)
    assert rules["merge_adapter"].disk_mb == 28000


def test_the_table_has_submitted_rules_then_local_ones_then_all():
    rows = {line[:13].strip(): line[13:].split() for line in table(read(DRY_RUN.splitlines()), {"fetch_source"})}
    assert list(rows) == ["", "finetune", "merge_adapter", "local rules", "all"]
    assert rows["finetune"] == ["2", "30", "60", "48", "0"]
    assert rows["local rules"] == ["1", "0", "0", "1", "0"]
    assert rows["all"] == ["4", "32", "61", "60", "28"]


def test_local_rules_are_told_from_the_files_of_rules(tmp_path):
    (tmp_path / "a.smk").write_text("rule one:\n    localrule: True\n    threads: 1\n\n\nrule two:\n    threads: 1\n")
    (tmp_path / "b.smk").write_text("X = 1\n\n\nrule three:\n    threads: 1\n    localrule: True\n")
    assert local_rules(tmp_path) == {"one", "three"}


@pytest.mark.parametrize("said", ["Nothing to be done (all requested files are present and up to date).", ""])
def test_where_nothing_is_planned_snakemakes_own_words_are_shown(monkeypatch, capsys, said):
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    plan.main()
    assert capsys.readouterr().out.strip() == said
