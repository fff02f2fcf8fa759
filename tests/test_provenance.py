"""The chain of a file back to its sources: what it shows, and that each tampered file on it is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import done, writes

from es2.errors import UserError
from es2.provenance import main

SOURCE, FETCHED, MANIFEST = "source.txt", "resources/sources/a.txt", "resources/models/tiny/manifest.json"
WEIGHTS, PROMPTS = "resources/models/tiny/model.safetensors", "results/mine/prompts/plain.parquet"
ADAPTER, TRAINING = "results/mine/models/tiny/es2/s0/adapter.bin", "results/mine/models/tiny/es2/s0/training.csv"
TABLE, ASIDE = "results/mine/tables/dsr.csv", "results/mine/tables/aside.csv"
BEHIND_TABLE = [TABLE, ADAPTER, MANIFEST, WEIGHTS, PROMPTS, FETCHED, SOURCE]


def fetch() -> None:
    done("fetch", [SOURCE], {FETCHED: Path(SOURCE).read_text()}, params={"cfg": {"kind": "file", "path": SOURCE}})


def train(text: str = "weights") -> None:
    wildcards = {"model": "tiny", "run": "es2", "seed": "0"}
    params = {"row": {"seed": 0}, "cfg": {f"setting{i}": i for i in range(30)}}
    done("finetune", [MANIFEST, PROMPTS], {ADAPTER: text, TRAINING: "loss"}, params=params, wildcards=wildcards)


def collect(text: str = "dsr") -> None:
    done("collect", [ADAPTER], {TABLE: text})


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch):
    """A study of five jobs: source -> fetched -> model and prompts -> adapter -> table, and a table aside."""
    monkeypatch.chdir(tmp_path)
    Path(SOURCE).write_text("words")
    fetch()
    done("convert", [FETCHED], {MANIFEST: "{}", WEIGHTS: "numbers"}, owns="resources/models/tiny")
    done("prepare", [FETCHED], {PROMPTS: "prompts"}, params={"seed": 7})
    train()
    collect()
    done("aside", [PROMPTS], {ASIDE: "other"})
    return tmp_path


def shown(capsys, *arguments: str) -> tuple[int, list[str]]:
    """The exit status and the lines that are printed."""
    status = main(arguments)
    return status, capsys.readouterr().out.splitlines()


def test_the_chain_goes_back_to_the_sources_each_file_once(capsys):
    status, lines = shown(capsys, TABLE)
    assert status == 0
    named = [line.strip().partition(":")[0] for line in lines if "<-" in line or "a source" in line]
    assert sorted(named) == sorted(BEHIND_TABLE)
    assert lines[0].startswith(f"{TABLE}: ok <- collect, code c0dec0dec0de, 20")
    assert lines[1].startswith(f"  {ADAPTER}: ok <- finetune (model tiny, run es2, seed 0), code")
    assert len([line for line in lines if line.strip() == f"{SOURCE}: ok, a source"]) == 1
    assert [line for line in lines if f"{PROMPTS}: ok <- prepare, code c0dec0dec0de, seed 7, " in line]
    assert lines[-1] == "7 files, 5 jobs: all as recorded"


def test_what_was_made_elsewhere_from_the_same_is_not_in_it(capsys):
    text = "\n".join(shown(capsys, TABLE)[1])
    assert TRAINING not in text
    assert ASIDE not in text


def test_short_settings_are_shown_and_long_ones_on_demand(capsys):
    plain = shown(capsys, TABLE)[1]
    full = shown(capsys, TABLE, "--settings")[1]
    assert [line for line in plain if line.strip() == "cfg.kind=file, cfg.path=source.txt"]
    assert not [line for line in plain if "setting29" in line]
    assert [line for line in full if line.strip() == "cfg.setting29=29"]
    assert [line for line in full if "torch " in line and "python " in line]


@pytest.mark.parametrize("tampered", BEHIND_TABLE)
def test_a_tampered_file_is_named_wherever_it_stands(tampered, capsys):
    with open(tampered, "a") as stream:
        stream.write("!")
    status, lines = shown(capsys, TABLE)
    assert status == 1
    assert [line for line in lines if f"{tampered}: CHANGED" in line]
    assert [line for line in lines if line.startswith(f"{tampered} is not as ")]
    assert f"CHANGED: {tampered}" in lines[-1]
    others = [path for path in BEHIND_TABLE if path != tampered]
    assert not [path for path in others if path in lines[-1]]


def test_every_one_of_several_is_named(capsys):
    writes({ADAPTER: "x", PROMPTS: "y"})()
    status, lines = shown(capsys, TABLE)
    assert status == 1
    assert {ADAPTER, PROMPTS} == set(lines[-1].partition("CHANGED: ")[2].split(", "))


def test_a_change_of_the_same_size_and_time_is_seen(capsys):
    before = os.stat(ADAPTER)
    Path(ADAPTER).write_text("wEights")
    os.utime(ADAPTER, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert shown(capsys, TABLE)[0] == 1


def test_a_file_beside_the_outputs_counts_and_one_off_the_chain_does_not(capsys):
    writes({ASIDE: "x", TRAINING: "x"})()
    assert shown(capsys, TABLE)[0] == 0
    writes({WEIGHTS: "x"})()
    assert shown(capsys, MANIFEST)[0] == 1


def test_a_job_that_read_other_weights_is_found_out_after_another_training(capsys):
    train("other weights")
    collect("other dsr")
    assert shown(capsys, TABLE)[0] == 0
    train()
    status, lines = shown(capsys, TABLE)
    assert status == 1
    assert f"{ADAPTER} is not as collect read it" in lines
    assert not [line for line in lines if "left it" in line]


def test_a_rerun_of_the_jobs_behind_makes_it_whole_again(capsys):
    writes({ADAPTER: "tampered"})()
    train("other weights")
    assert shown(capsys, TABLE)[0] == 1
    collect("other dsr")
    assert shown(capsys, TABLE)[0] == 0


def test_a_file_deleted_since_is_told_and_is_an_error_only_where_it_was_asked_for(capsys):
    Path(ADAPTER).unlink()
    status, lines = shown(capsys, TABLE)
    assert status == 0
    assert f"1 missing (such as {ADAPTER})" in lines[-1]
    assert shown(capsys, ADAPTER)[0] == 1


def test_a_file_of_the_study_without_a_record_breaks_the_chain(capsys):
    Path("results/mine/provenance/finetune/tiny/es2/0.json").unlink()
    status, lines = shown(capsys, TABLE)
    assert status == 1
    assert f"{ADAPTER} has no record of what made it" in lines
    assert f"1 no record (such as {ADAPTER})" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([SOURCE], "source.txt: no record says what made this file"),
        (["results/mine/nothing.csv"], "results/mine/nothing.csv: there is no such file"),
        (["workflow"], "there is no such file"),
        (["logs"], "logs: no record of a file in this folder"),
        ([], "provenance: say `python -m es2.provenance FILE"),
        (["--all"], "provenance: say `python -m es2.provenance FILE"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=r"^[^\n]+$") as raised:
        main(arguments)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(("text", "sentence"), [("{", "cannot be read"), ("{}", "lacks beside"), ("[]", "lacks")])
def test_a_record_that_cannot_be_read_is_one_sentence(text, sentence):
    writes({"results/mine/provenance/odd.json": text})()
    with pytest.raises(UserError, match=r"odd\.json: this record .*delete it") as raised:
        main([TABLE])
    assert sentence in str(raised.value)


def test_a_folder_checks_all_that_its_files_were_made_from(capsys):
    writes({"results/mine/report.html": "", "results/mine/timings/a/b.tsv": ""})()
    status, lines = shown(capsys, "results/mine")
    assert status == 0
    assert lines == [
        "9 files, 6 jobs: all as recorded; 1 beside them without a record (such as results/mine/report.html)"
    ]
    writes({FETCHED: "x", ASIDE: "x"})()
    status, lines = shown(capsys, "results/mine")
    assert status == 1
    assert set(lines[-1].partition("CHANGED: ")[2].partition(";")[0].split(", ")) == {FETCHED, ASIDE}
    assert shown(capsys, "results/mine/models")[0] == 1


def test_a_source_that_two_studies_share_has_the_record_of_the_one_that_fetched_it(capsys):
    done("prepare", [FETCHED], {"results/other/prompts.parquet": "p"}, study="other")
    status, lines = shown(capsys, "results/other/prompts.parquet")
    assert status == 0
    assert [line for line in lines if line.startswith(f"  {FETCHED}: ok <- fetch")]


def test_of_two_studies_that_read_different_versions_the_one_that_is_behind_is_found(capsys):
    Path(SOURCE).write_text("other words")
    fetch()
    for study in ("another", "zero"):
        done("prepare", [FETCHED], {f"results/{study}/prompts.parquet": "p"}, study=study)
    status, lines = shown(capsys, "results/another", "results/mine", "results/zero")
    assert status == 1
    assert lines.count(f"{FETCHED} is not as prepare read it") == 1
    assert shown(capsys, "results/another")[0] == 0


def test_the_newest_record_of_a_file_counts(capsys, monkeypatch):
    monkeypatch.setattr("es2.records._now", lambda: "2999-01-01T00:00:00+00:00")
    done("aaa_later", [PROMPTS], {TABLE: "judged anew"})
    status, lines = shown(capsys, TABLE)
    assert status == 0
    assert f"{TABLE}: ok <- aaa_later" in lines[0]


def command(study: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    say = [sys.executable, "-m", "es2.provenance", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(say, cwd=study, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_the_command_ends_with_its_status_and_a_mistake_without_a_traceback(study):
    good, bad = command(study, str(study / TABLE)), command(study, SOURCE)
    assert good.communicate()[1] == ""
    assert bad.communicate()[1].count("\n") == 1
    assert (good.returncode, bad.returncode) == (0, 1)


def test_a_reader_that_has_read_enough_sees_no_traceback(study):
    asked = command(study, TABLE)
    asked.stdout.close()
    assert asked.stderr.read() == ""
    asked.wait()


def test_it_imports_nothing_heavy():
    heavy = "torch", "transformers", "pandas", "numpy"
    code = f"import sys, es2.provenance; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert ran.stdout.strip() == "[]"
