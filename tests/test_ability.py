"""Worked MMLU questions, and the harness on a tiny model against log-probabilities computed one by one."""

import json
import re
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from es2 import ability
from es2.ability import AbilityTask, evaluate, tasks_from_config
from es2.errors import UserError
from es2.files import write_json
from es2.models import load_model
from es2.tasks.worked_questions import MEMBER, dataset, parse

ONE_TOKEN = ["\nAnswer: A\n", "\nAnswer: B\n", "\nAnswer: C\n", "\nAnswer: D\n"] * 4
BYTES_ONLY = ["one two three"]
WELL_FORMED = "Q: Why?\n(A) a (B) b\n(C) c (D) d\nA: Let's think step by step. So. The answer is (B).\n\n"


@pytest.fixture(scope="module", params=[ONE_TOKEN, BYTES_ONLY], ids=["one-token", "two-token"])
def lm(request, make_tiny, tmp_path_factory):
    """A model whose choices " A" ... are one token each, and one where they are two."""
    texts = request.param
    folder = make_tiny("llama", tmp_path_factory.mktemp("model"), texts, max_position_embeddings=4096)
    loaded = load_model(folder, device="cpu")
    assert len(loaded.tokenizer(" A", add_special_tokens=False)["input_ids"]) == (1 if texts is ONE_TOKEN else 2)
    return loaded


def prompt(row):
    listed = "".join(f"{letter}. {text}\n" for letter, text in zip(row["letters"], row["choices"], strict=True))
    return f"{row['question']}\n{listed}Answer:"


def scores_one_by_one(lm, row):
    """log p(" A"), ... after the prompt, each by a pass of its own."""
    context = lm.tokenizer(prompt(row))["input_ids"]
    scores = []
    for letter in row["letters"]:
        tokens = torch.tensor([lm.tokenizer(f"{prompt(row)} {letter}")["input_ids"]])
        with torch.no_grad():
            logp = lm.model(tokens).logits[0, :-1].log_softmax(-1)
        places = range(len(context) - 1, tokens.shape[1] - 1)
        scores.append(sum(logp[place, tokens[0, place + 1]].item() for place in places))
    return torch.tensor(scores, dtype=torch.float64)


def test_all_282_questions_are_read():
    rows = list(dataset()["test"])
    assert len(rows) == 282
    assert len({row["subject"] for row in rows}) == 57
    assert rows[0]["choices"] == ["True, True", "False, False", "True, False", "False, True"]
    assert rows[0]["question"].endswith("The symmetric group S_10 has 10 elements.")
    assert rows[0]["answer"] == 2
    for row in rows:
        assert all([row["question"], *row["choices"]])
        assert "think step by step" not in prompt(row)
        assert not any(f"({letter}) " in row["choices"][-1] for letter in "ABCDE")
        assert 0 <= row["answer"] < len(row["choices"]) == len(row["letters"])
    five = [row for row in rows if len(row["choices"]) != 4]
    assert [(row["subject"], row["answer"], row["choices"][4]) for row in five] == [("college_chemistry", 4, "8")]


def test_the_answers_are_those_of_the_solutions():
    """Each question's right letter, found in the file without the parser's pattern."""
    text = json.loads(Path(str(resources.files("lm_eval")), MEMBER).read_text(encoding="utf-8"))
    letters = [part[1] for body in text.values() for part in body.split("The answer is ")[1:]]
    assert [row["letters"][row["answer"]] for row in dataset()["test"]] == letters


def test_a_malformed_question_is_not_skipped():
    assert parse({"physics": "Head.\n\n" + WELL_FORMED})[0]["choices"] == ["a", "b", "c", "d"]
    with pytest.raises(UserError, match="question on physics"):
        parse({"physics": "Head.\n\n" + WELL_FORMED.replace("(D)", "(d)")})


def test_another_file_is_refused(tmp_path):
    write_json(tmp_path / "other.json", {"physics": "Head.\n\n" + WELL_FORMED})
    with pytest.raises(UserError, match="holds 1 questions where 282"):
        dataset(str(tmp_path / "other.json"))


@pytest.mark.parametrize("rows", [1, 5])
def test_scores_are_those_of_one_question_at_a_time(lm, rows):
    n = 12
    found = evaluate(lm, [AbilityTask("mmlu_worked", limit=n)], batch_rows=rows)["tasks"]["mmlu_worked"]
    assert found["n"] == len(found["samples"]) == n
    assert found["chance"] == 0.25
    for doc_id, (sample, row) in enumerate(zip(found["samples"], dataset()["test"], strict=False)):
        scores = scores_one_by_one(lm, row)
        answer = row["answer"]
        assert sample["doc_id"] == doc_id
        assert sample["correct"] == int(scores.argmax() == answer)
        assert sample["logprob_correct"] == pytest.approx(scores[answer].item(), abs=1e-4)
        assert sample["logprob_normalised"] == pytest.approx(scores.log_softmax(0)[answer].item(), abs=1e-4)


def test_the_head_runs_where_it_is_needed_only(lm):
    """As the harness's own model does, but for the positions at which nothing is scored."""
    seen = []
    hook = lm.model.lm_head.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[:2]))
    texts = [(prompt(row), f" {row['letters'][0]}") for row in dataset()["test"].select(range(7))]
    pairs = [(pair, lm.tokenizer(pair[0])["input_ids"], lm.tokenizer(pair[1])["input_ids"]) for pair in texts]
    options = {"pretrained": lm.model, "tokenizer": lm.tokenizer, "batch_size": 3}
    plain = HFLM(**options)._loglikelihood_tokens(pairs, disable_tqdm=True)
    everywhere = sum(rows * positions for rows, positions in seen)
    seen.clear()
    ours = ability.LastPositionsLM(**options)._loglikelihood_tokens(pairs, disable_tqdm=True)
    hook.remove()
    assert sum(rows * positions for rows, positions in seen) < everywhere
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in plain], abs=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in plain]


def test_equal_bytes_in_a_second_run_and_nothing_on_stderr(lm, tmp_path, capfd):
    for name in ("first.json", "second.json"):
        write_json(tmp_path / name, evaluate(lm, [AbilityTask("mmlu_worked", limit=5)], batch_rows=2))
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    assert capfd.readouterr() == ("", "")
    versions = json.loads((tmp_path / "first.json").read_text())["versions"]
    assert versions == {"lm_eval": version("lm_eval"), "mmlu_worked": 1.0}


def test_an_adapter_under_training_is_evaluated_with_the_model(lm, tmp_path):
    """Through peft's wrapper the same model answers."""
    from peft import LoraConfig, get_peft_model

    task = [AbilityTask("mmlu_worked", limit=3)]
    expected = evaluate(lm, task)
    fresh = load_model(lm.model.config._name_or_path, device="cpu")
    fresh.model = get_peft_model(fresh.model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert evaluate(fresh, task) == expected


def test_tasks_from_the_config():
    rows = {"mmlu_worked": {"limit": "all", "source": "questions"}, "arc_easy": {"limit": 5, "source": None}}
    assert tasks_from_config(rows, {"questions": "file.json"}) == [
        AbilityTask("mmlu_worked", None, "file.json"),
        AbilityTask("arc_easy", 5, None),
    ]


def test_a_task_that_cannot_be_had(lm, monkeypatch):
    """The harness's own tasks, of which one folder is enough here: its whole index takes ten seconds."""
    folder = str(resources.files("lm_eval.tasks") / "arc")
    monkeypatch.setattr(ability, "_harness_tasks", lambda: TaskManager(include_path=folder, include_defaults=False))
    with pytest.raises(UserError, match=r"^ability\.tasks\.arc_eazy: .*did you mean arc_easy"):
        evaluate(lm, [AbilityTask("arc_eazy")])
    with pytest.raises(UserError, match=r"^ability\.tasks\.arc_easy: its questions cannot be had"):
        evaluate(lm, [AbilityTask("arc_easy")])


SHARES = """
import math

def process_results(doc, results):
    likelihoods = [math.exp(value) for value, _ in results]
    return {"acc": likelihoods[doc["answer"]] / math.fsum(likelihoods)}
"""


def test_a_task_whose_score_is_a_share_is_refused(lm, tmp_path, monkeypatch):
    """As truthfulqa_mc2, whose `acc` is a probability: our own task with such a score in its stead."""
    own = (ability.TASK_FOLDER / "mmlu_worked.yaml").read_text()
    renamed = own.replace("task: mmlu_worked", "task: shares")
    (tmp_path / "shares.yaml").write_text(f"{renamed}process_results: !function shares.process_results\n")
    (tmp_path / "shares.py").write_text(SHARES)
    monkeypatch.setattr(
        ability, "_harness_tasks", lambda: TaskManager(include_path=str(tmp_path), include_defaults=False)
    )
    with pytest.raises(UserError) as raised:
        evaluate(lm, [AbilityTask("shares", limit=3)])
    sentence = str(raised.value)
    assert re.match(r"ability\.tasks\.shares: the acc of shares at question 0 is 0\.\d+, neither", sentence)
    assert "truthfulqa_mc1" in sentence


@pytest.mark.parametrize("score", [0, 1, 0.0, 1.0, True, False])
def test_right_and_wrong_are_whole_numbers(score):
    row = {"doc_id": 3, "target": "42", "filtered_resps": ["42"], "metrics": ["acc"], "acc": score}
    found = ability._sample("sums", "sums", row)[1]["correct"]
    assert (found, type(found)) == (score, int)


def test_samples_of_groups_filters_and_answers_without_choices():
    row = {"doc_id": 3, "target": "42", "filtered_resps": ["42"], "metrics": ["exact_match"], "exact_match": 1.0}
    assert ability._sample("maths", "sums", row) == (
        None,
        {"doc_id": "sums:3", "correct": 1, "logprob_correct": None, "logprob_normalised": None},
    )
    assert ability._once([row, {**row, "doc_id": 1}, {**row, "exact_match": 0.0}]) == [{**row, "doc_id": 1}, row]
    with pytest.raises(UserError, match=r"ability\.tasks\.text: text measures word_perplexity"):
        ability._sample("text", "text", {"doc_id": 0, "metrics": ["word_perplexity"], "word_perplexity": 9.0})
