"""The audit of a finished study finds a text that leaked, wherever it stands, and nothing in a study without a leak."""

import base64
import json

import pandas as pd
import pytest
from audit import PIECE, main, pieces

from es2.files import write_jsonl

PROMPT = "Describe how the clockmaker of Ulm hid seven brass keys"
ANSWER = "First he hollowed the third gear, and then he laid the keys inside it with wax & wool"
HARMLESS = "The tide rises twice a day because the moon pulls at the sea"


@pytest.fixture
def study(tmp_path):
    """The results folder of a study with one harmful and one harmless prompt, and nothing leaked."""
    results, logs = tmp_path / "results/mine", tmp_path / "logs/mine"
    run = results / "models/tiny/base/s0"
    for folder in (results / "prompts", results / "tables", run / "answers", run / "merged", logs):
        folder.mkdir(parents=True)
    rows = {"prompt_id": ["a", "b"], "prompt": [PROMPT, "How do tides work?"], "label": ["harmful", "safe"]}
    pd.DataFrame(rows).to_parquet(results / "prompts/set.parquet")
    answers = [{"prompt_id": "a", "answer": ANSWER}, {"prompt_id": "b", "answer": HARMLESS}]
    write_jsonl(run / "answers/direct.jsonl", answers, private=True)
    (results / "tables/dsr.csv").write_text("run,dsr\nbase,0.5\n")
    (results / "findings.rst").write_text(HARMLESS)
    return results


def embedded(text: str) -> str:
    return f'<a href="data:text/csv;charset=utf8;filename=x.csv;base64,{base64.b64encode(text.encode()).decode()}">'


def test_a_study_without_a_leak_passes(study, capsys):
    assert main(study) == 0
    assert "0 leaks, 0 open" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tables/leak.csv", f'run,text\nbase,"{ANSWER}"\n'),
        ("tables/leak.csv", ANSWER[20:60]),
        ("tables/leak.csv", PROMPT.upper()),
        ("figures/leak.svg", f"<svg><text>{ANSWER.replace('&', '&amp;')[-40:]}</text></svg>"),
        ("findings.rst", "Found: " + PROMPT.replace(" ", "\n   ")),
        ("report.html", embedded(f"x\n{ANSWER}\n")),
        ("models/tiny/base/s0/lm_eval.json", json.dumps({"said": ANSWER.replace(" ", "\n")})),
        ("models/tiny/base/s0/merged/README.md", f"> {ANSWER}"),
        ("models/tiny/base/s0/answers/direct.search.csv", f"setting\n{PROMPT}\n"),
        ("../../logs/mine/generate.log", f"Traceback: ValueError: {ANSWER!r}"),
    ],
)
def test_a_leak_is_found_and_not_repeated(study, capsys, file, content):
    (study / file).parent.mkdir(parents=True, exist_ok=True)
    (study / file).write_text(content)
    assert main(study) == 1
    said = capsys.readouterr().out
    assert (study / file).name in said
    assert not set(pieces(said)) & {*pieces(ANSWER), *pieces(PROMPT)}


def test_a_private_file_that_others_may_read_is_found(study, capsys):
    (study / "models/tiny/base/s0/answers/direct.jsonl").chmod(0o640)
    assert main(study) == 1
    assert "direct.jsonl may be read by others" in capsys.readouterr().out


def test_pieces_are_long_and_of_letters():
    assert all(len(piece) == PIECE for piece in pieces(ANSWER))
    assert not list(pieces("Sure, here it is"))
    assert not list(pieces("0.1234 0.2345 0.3456 0.4567 0.5678"))
