"""The record of a job: what it holds, what it never holds, and when there is none."""

import errno
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jobs import done, run, stand_in, writes

from es2 import records
from es2.files import read_json

ROOT = Path(__file__).parents[1]
RUN = {"model": "tiny", "run": "es2", "seed": "s1"}
ANSWERS = "results/mine/models/tiny/es2/s1/answers/direct.jsonl"


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """A working directory with a source in it."""
    monkeypatch.chdir(tmp_path)
    Path("source.txt").write_text("words")
    return tmp_path


def all_records() -> list[Path]:
    return sorted(Path().rglob("provenance/**/*.json"))


def only_record() -> dict[str, Any]:
    (path,) = all_records()
    return read_json(path)


def file(text: str) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}


def test_it_tells_what_was_read_and_written_and_how():
    params = {"row": {"run": "es2", "seed": 1}, "cfg": {"steps": 3, "layers": (1, 2), "rule": None}}
    done("train", ["source.txt"], {"results/mine/a.csv": "a", "results/mine/b.csv": "bb"}, params=params, wildcards=RUN)
    record = only_record()
    assert record["inputs"] == {"source.txt": file("words")}
    assert record["outputs"] == {"results/mine/a.csv": file("a"), "results/mine/b.csv": file("bb")}
    assert record["beside"] == {}
    assert (record["rule"], record["wildcards"], record["seed"], record["threads"]) == ("train", RUN, 1, 1)
    assert record["params"] == {"row": {"run": "es2", "seed": 1}, "cfg": {"steps": 3, "layers": [1, 2], "rule": None}}
    assert record["code"] == "c0de" * 16
    assert set(record["versions"]) == {"python", *records.VERSIONS}
    assert record["versions"]["torch"]
    assert record["started"] <= record["finished"]


def test_the_seed_is_the_parameter_or_the_rows_or_the_wildcard():
    for i, (params, wildcards) in enumerate([({"seed": 4}, {}), ({"row": {"seed": 5}}, {}), ({}, {"seed": "6"})]):
        done(f"rule{i}", [], {f"results/mine/{i}.csv": ""}, params=params, wildcards=wildcards)
    assert [read_json(path)["seed"] for path in all_records()] == [4, 5, "6"]


def test_it_stands_with_the_study_or_with_what_studies_share():
    done("judge", [], {"results/mine/v.csv": ""}, wildcards={"job": "tiny/es2", "bundle": "direct.keyword"})
    done("fetch", [], {"resources/sources/a.gguf": ""}, wildcards={"file": "a.gguf"})
    done("fetch", [], {"resources/sources/a.json": ""}, wildcards={"file": "a.json"}, study="other")
    assert [str(path) for path in all_records()] == [
        "resources/provenance/fetch/a.gguf.json",
        "resources/provenance/fetch/a.json.json",
        "results/mine/provenance/judge/tiny/es2/direct.keyword.json",
    ]


def test_a_job_that_fails_has_none_and_loses_the_one_it_had():
    done("train", ["source.txt"], {"results/mine/a.csv": "a"})
    assert len(all_records()) == 1

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(SystemExit):
        run(stand_in("train", ["source.txt"], ["results/mine/a.csv"]), fails)
    assert all_records() == []


def test_a_second_run_of_a_job_overwrites_its_record():
    for text in ("first", "second"):
        done("train", ["source.txt"], {"results/mine/a.csv": text})
    assert only_record()["outputs"] == {"results/mine/a.csv": file("second")}


def test_it_is_written_whole_or_not_at_all(monkeypatch, capsys):
    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    snakemake = stand_in("train", [], ["results/mine/a.csv"])
    monkeypatch.setattr("es2.files.os.replace", full)
    with pytest.raises(SystemExit):
        run(snakemake, writes({"results/mine/a.csv": "a"}))
    assert "is full: make room" in capsys.readouterr().err
    assert [path for path in Path("results/mine/provenance").rglob("*") if path.is_file()] == []


def test_an_input_is_hashed_as_the_body_found_it():
    def body() -> None:
        writes({"results/mine/a.csv": "a", "source.txt": "changed"})()

    run(stand_in("train", ["source.txt"], ["results/mine/a.csv"]), body)
    assert only_record()["inputs"] == {"source.txt": file("words")}


def test_files_that_a_job_writes_beside_its_outputs_are_in_it_and_those_of_others_are_not():
    writes({"results/mine/merged/README.md": "the card of another job", "results/mine/merged/old.json": "old"})()
    files = {
        "results/mine/merged/weights": "w",
        "results/mine/merged/tokenizer": "t",
        "results/mine/merged/old.json": "n",
    }
    done("merge", [], files, owns="results/mine/merged")
    record = only_record()
    assert set(record["outputs"]) == {"results/mine/merged/weights"}
    assert record["beside"] == {"results/mine/merged/old.json": file("n"), "results/mine/merged/tokenizer": file("t")}


def test_no_secret_is_in_it(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.setenv("MY_API_KEY", "sk-0123456789")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism")
    told = {
        "address": "https://me:word@judge.example/v1",
        "deep": [{"x": "Bearer hf_abcdefghijklmnop"}, "sk-0123456789"],
    }
    done("train", ["source.txt"], {"results/mine/a.csv": "a"}, params={"cfg": told, "kept": "parallelism"})
    text = all_records()[0].read_text()
    assert not [word for word in ("hf_abcdefghijklmnop", "sk-0123456789", "me:word") if word in text]
    assert only_record()["params"] == {
        "cfg": {"address": "https://***@judge.example/v1", "deep": [{"x": "Bearer ***"}, "***"]},
        "kept": "parallelism",
    }


def test_no_answer_and_no_prompt_is_in_it():
    done("generate", ["source.txt"], {ANSWERS: json.dumps({"prompt": "how to", "answer": "first you"})}, wildcards=RUN)
    text = all_records()[0].read_text()
    assert ANSWERS in text
    assert not [word for word in ("how to", "first you", "words") if word in text]


def test_no_parameter_of_the_workflow_comes_from_the_environment():
    files = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk"), *(ROOT / "es2/settings").glob("*.py")]
    assert len(files) > 10
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    asking = [line.split("(")[0].strip() for line in lines if re.search(r"\benviron\b|getenv|envvars", line)]
    # The container is no parameter, and of the other line the environment is told something.
    assert asking == ["container: os.environ.get", "os.environ.setdefault"]


def test_a_parameter_of_no_json_type_is_told_as_text():
    done("train", [], {"results/mine/a.csv": ""}, params={"path": Path("here"), "names": {"one"}})
    assert only_record()["params"] == {"path": "here", "names": ["one"]}


def test_the_commit_is_that_of_the_codes_own_repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    assert records._commit(folder) is None
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    (folder / "code.py").write_text("VALUE = 1\n")
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert records._commit(folder) == commit.strip()
    (folder / "code.py").write_text("VALUE = 2\n")
    assert records._commit(folder) == f"{commit.strip()}-dirty"
    (folder / "below").mkdir()
    assert records._commit(folder / "below") is None
