"""One evaluation job: benchmarks, validation prompts, and rows that can be written."""

import json

import pandas as pd
import pytest
import torch
from conftest import PROMPTS

from es2.embeddings import Embeddings, extract
from es2.errors import UserError
from es2.evaluation import SEARCH_COLUMNS, benchmark, evaluate_bundle
from es2.generation import generate
from es2.probes import fit_probe_set

ROW = {"run": "es2", "model": "tiny", "method": "es2", "parent": "base", "seed": 2}
ANSWER_KEYS = {
    "run", "model", "seed", "attack", "fitted_on", "setting", "budget", "realised", "control", "draw", "benchmark",
    "split", "prompt_id", "answer", "n_tokens", "finished",
}  # fmt: skip


def prompt_table():
    rows = []
    for name, label in (("harm", "harmful"), ("plain", "safe")):
        for split in ("test", "validation"):
            rows += [
                {
                    "prompt_id": f"{name}-{split}-{i}",
                    "prompt": f"{text} {split}",
                    "set": name,
                    "label": label,
                    "split": split,
                }
                for i, text in enumerate(PROMPTS)
            ]
    return pd.DataFrame(rows)


def config(attack, **bundle):
    controls = {"random": 1, "shuffled": 0, "prompts": 1}
    return {
        "attack": attack,
        "bundle": {
            "attack": "named",
            "benchmarks": {"harm": 4, "plain": "all", "unused": 0},
            "controls": controls,
            **bundle,
        },
        "generation": {"backend": "transformers", "max_new_tokens": 3, "batch_rows": 8},
        "judge": {"kind": "keyword"},
        "attacker_sets": ["harm"],
    }


def test_direct_bundle(load_model):
    lm, prompts, done = load_model(), prompt_table(), []
    rows, search = evaluate_bundle(lm, config({"kind": "direct"}), ROW, prompts, {}, None, done.append)
    assert sum(done) == len(rows) == 10
    assert [row["benchmark"] for row in rows] == ["harm"] * 4 + ["plain"] * 6
    assert {(row["split"], row["attack"]) for row in rows} == {("test", "named")}
    for row in rows:
        assert set(row) == ANSWER_KEYS
        assert json.loads(json.dumps(row)) == row
        text = prompts.set_index("prompt_id").loc[row["prompt_id"], "prompt"]
        answer = generate(lm, lm.chat_tokens([text]), 3)[0]
        assert (row["answer"], row["n_tokens"], row["finished"]) == (answer.text, len(answer.tokens), answer.finished)
    assert list(search.columns) == SEARCH_COLUMNS
    assert search.empty


def test_adaptive_bundle_searches_on_harmful_validation_prompts_alone(load_model):
    lm, prompts = load_model(), prompt_table()
    values = extract(lm, prompts["prompt"].tolist())
    labels = torch.tensor((prompts["label"] == "harmful").tolist())
    probes = {"self": fit_probe_set(values, labels, values, labels, [1.0], seed=0)}
    search = {"rules": ["probability"], "c": [1.0], "accuracy": [-1.0], "windows": [[0, 1]]}
    search |= {"first_budgets": [0.1], "first_prompts": 2, "keep": 1}
    attack = {"kind": "scav_adaptive", "budgets": [0.1, 0.2], "control_budgets": [], "search": search}
    embeddings = Embeddings(prompts["prompt_id"].tolist(), values)
    seen = []
    ask = lm.chat_text
    lm.chat_text = lambda prompt: seen.append(prompt) or ask(prompt)
    rows, table = evaluate_bundle(lm, config(attack), ROW, prompts, probes, embeddings)
    assert len(rows) == 2 * 10
    assert table["n"].tolist() == [2, 6, 6]
    validation = {text for text in seen if text.endswith("validation")}
    assert validation == {f"{text} validation" for text in PROMPTS}
    assert all(json.loads(json.dumps(row)) == row for row in rows)


def test_an_attack_without_embeddings_is_a_user_error(load_model):
    lm, prompts = load_model(), prompt_table()
    values = extract(lm, prompts["prompt"].tolist())
    labels = torch.tensor((prompts["label"] == "harmful").tolist())
    probes = {"self": fit_probe_set(values, labels, values, labels, [1.0], seed=0)}
    attack = {"kind": "scav", "c": 1.0, "accuracy": -1.0, "p0": 1e-2}
    with pytest.raises(UserError, match="embeddings"):
        evaluate_bundle(lm, config(attack, fitted_on=["self"]), ROW, prompts, probes, None)


def test_unknown_names_are_user_errors(load_model):
    with pytest.raises(UserError, match="did you mean scav"):
        evaluate_bundle(load_model(), config({"kind": "scaf"}), ROW, prompt_table(), {}, None)
    wrong = {**config({"kind": "direct"}), "judge": {"kind": "nonesuch"}}
    with pytest.raises(UserError, match="judge"):
        evaluate_bundle(load_model(), wrong, ROW, prompt_table(), {}, None)


def test_benchmark_takes_the_first_test_prompts():
    prompts = prompt_table()
    assert benchmark(prompts, "harm", 2)["prompt_id"].tolist() == ["harm-test-0", "harm-test-1"]
    assert len(benchmark(prompts, "plain", "all")) == 6
    with pytest.raises(UserError, match="no test prompts"):
        benchmark(prompts[prompts["split"] != "test"], "harm", "all")
