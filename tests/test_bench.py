"""The bench on a tiny random model: every row is there, and a row whose two sides differ is never timed."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from bench_results import rows_of, spoiled

from bench import extraction, generation, memory, points
from bench.__main__ import comparisons, main
from bench.goals import GOALS
from bench.measure import COLUMNS, Comparison, Machine, UnequalError, measured
from bench.scene import QUICK, scene, tiny
from es2.files import read_json

MACHINE = Machine(torch.device("cpu"), torch.float32, 8)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """The scene of `--quick`."""
    return scene("tiny", tiny(tmp_path_factory.mktemp("tiny"), "cpu"), QUICK)


@pytest.fixture(scope="module")
def results(stage):
    """Each row with what both of its sides give."""
    return {(one.path, one.anchor): (one, one.ours(), one.theirs()) for one in comparisons(stage)}


def test_quick_makes_every_row(tmp_path, capsys):
    assert main(["--quick", "--threads", "1", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "bench.csv")
    assert tuple(table.columns) == COLUMNS
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    expected = [(*key, "tiny", device) for device in devices for key in GOALS]
    assert list(zip(table["path"], table["anchor"], table["model"], table["device"], strict=True)) == expected
    assert (table["ratio_low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["ratio_high"]).all()
    assert (table[["ours_s", "anchor_s", "ratio_low"]] > 0).all(axis=None)
    assert (table["fraction_of_limit"].notna() == (table["path"] == "extraction")).all()
    about = read_json(tmp_path / "bench.json")
    assert about["threads"] == 1
    assert about["sizes"]["resamples"] == QUICK.resamples
    assert len([line for line in capsys.readouterr().out.splitlines() if "/" in line and ": " in line]) >= len(table)


def test_chosen_paths_are_measured_alone(tmp_path):
    assert main(["--quick", "--threads", "1", "--devices", "cpu", "--paths", "es2_step", "--out", str(tmp_path)]) == 0
    assert set(pd.read_csv(tmp_path / "bench.csv")["path"]) == {"es2_step"}


@pytest.mark.parametrize("key", GOALS, ids="/".join)
def test_a_wrong_anchor_is_told_with_its_numbers(results, key):
    comparison, ours, theirs = results[key]
    comparison.check(ours, theirs)
    wrong = spoiled(theirs, 0.3 if key[0] == "extraction_bfloat16" else 0.01)
    assert wrong
    for one in wrong:
        with pytest.raises(UnequalError, match=r"\d"):
            comparison.check(ours, one)
        with pytest.raises(UnequalError, match=f"{comparison.path}/{comparison.anchor}: the results differ"):
            measured(replace(comparison, theirs=lambda one=one: one), MACHINE, "tiny")


def test_the_results_are_not_trivial(results):
    """What is compared varies over prompts, and no term of the loss is zero."""
    embeddings = results["extraction", "one_prompt_at_a_time"][1]
    assert embeddings.std(dim=0).min() > 1e-3
    assert len({tuple(answer) for answer in results["generation", "unsorted_batches_of_8"][1]}) > 3
    step = results["es2_step", "two_models_dynamic_padding"][1]
    assert step.loss > 0.1
    assert (step.gradient != 0).float().mean() > 0.9
    probed = results["probes", "scikit_learn_loop"][1]
    assert (probed.probability - probed.shuffled).abs().max() > 0.1


def test_an_unequal_row_ends_the_bench_with_one_sentence(monkeypatch, capsys, tmp_path):
    right = extraction.batched_hidden_states
    monkeypatch.setattr(extraction, "batched_hidden_states", lambda *inputs: 1.01 * right(*inputs))
    assert main(["--quick", "--threads", "1", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "extraction/batched_hidden_states: the results differ: embeddings" in said
    assert "bound 0.0001" in said
    assert "Traceback" not in said
    assert not (tmp_path / "bench.csv").exists()


def test_a_missing_model_is_one_sentence(capsys, tmp_path):
    assert main(["--model", str(tmp_path / "none"), "--threads", "1", "--out", str(tmp_path)]) == 1
    assert "there is no config.json" in capsys.readouterr().err


@pytest.mark.parametrize(("cost", "expected"), [(False, (3.0, 2.0, 8.0)), (True, (1 / 3, 1 / 8, 1 / 2))])
def test_ratios_are_of_one_turn_each(monkeypatch, cost, expected):
    """Ours takes 1, 2, 1 seconds, the anchor 3, 4, 8; the sides take turns."""
    calls = []
    taken = {"ours": iter([1.0, 2.0, 1.0]), "theirs": iter([3.0, 4.0, 8.0])}
    sides = {name: (lambda name=name: calls.append(name) or name) for name in taken}
    monkeypatch.setattr(Machine, "seconds", lambda self, call: next(taken[call()]))
    comparison = Comparison("a", "b", sides["ours"], sides["theirs"], lambda *_: None, 3, cost=cost)
    row = measured(comparison, MACHINE, "tiny")
    assert calls == ["ours", "theirs"] * 4
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx(expected)
    assert (row["ours_s"], row["anchor_s"], row["fraction_of_limit"]) == (1.0, 4.0, None)


def test_the_fraction_of_the_limit_is_of_the_machines_rate(monkeypatch):
    monkeypatch.setattr(Machine, "seconds", lambda self, call: 2.0)
    monkeypatch.setattr(Machine, "flop_per_second", lambda self: 50.0)
    comparison = Comparison("a", "b", list, list, lambda *_: None, 1, flop=30.0)
    assert measured(comparison, MACHINE, "tiny")["fraction_of_limit"] == pytest.approx(30 / 50 / 2)


def test_answers_may_part_at_a_tie_alone(stage, monkeypatch):
    """Two tokens with the same weights in the head are a tie; any other token is none; two answers are too many."""
    prompts = stage.prompts()
    lm = stage.lm
    mine = rows_of(lm, prompts, 4)
    token = mine[0][2]
    other = next(one for one in range(5, lm.n_tokens) if one not in {token for row in mine for token in row})
    part = [*mine[0][:2], other, *mine[0][3:]]
    with pytest.raises(UnequalError, match="answer 0 differs where the two tokens' logits are"):
        generation.expect_same_answers(lm, prompts, mine, [part, *mine[1:]])
    head = lm.base.get_output_embeddings().weight
    kept = head[other].clone()
    with torch.no_grad():
        head[other] = head[token]
    generation.expect_same_answers(lm, prompts, mine, [part, *mine[1:]])
    again = [*mine[1][:2], other, *mine[1][3:]]
    with pytest.raises(UnequalError, match="2 of 12 answers differ, at most 1 may"):
        generation.expect_same_answers(lm, prompts, mine, [part, again, *mine[2:]])
    with torch.no_grad():
        head[other] = kept


def test_memory_is_measured_in_a_process_for_each_number_of_prompts(tmp_path):
    memory.main(["--quick", "--out", str(tmp_path)])
    table = pd.read_csv(tmp_path / "memory.csv")
    assert list(table.columns) == list(memory.COLUMNS)
    assert table["prompts"].tolist() == list(memory.QUICK)
    assert table["file_mb"].is_monotonic_increasing
    assert (table["peak_mb"] > 100).all()


def test_points_are_measured_on_a_tiny_shape(tmp_path, capsys):
    assert points.main(["--quick", "--dtype", "float32", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "points.csv")
    assert tuple(table.columns) == points.COLUMNS
    assert table["path"].tolist() == ["extraction", "answers", "es2_step"]
    assert (table[["seconds", "tokens_per_second", "tflop_per_second", "fraction_of_product"]] > 0).all(axis=None)
    assert table["dtype"].unique() == ["float32"]
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_tokens_of_a_point_are_those_that_are_run(stage):
    """The shared head once, each prompt's own tokens, and what is written."""
    lm = points.random_model(points.TINY, torch.device("cpu"), torch.float32)
    extraction_point, answers, step = points.points(lm, points.TINY, points.QUICK)
    head, own = ids_of(lm, points.prompts(points.QUICK.prompts))
    assert extraction_point.tokens == head + sum(own)
    assert extraction_point.flop == 2.0 * points.TINY.block_weights * (head + sum(own))
    head, own = ids_of(lm, points.prompts(points.QUICK.answers))
    written = answers.tokens - head - sum(own)
    assert 0 < written <= points.QUICK.answers * points.QUICK.new_tokens
    assert step.tokens > points.QUICK.step


def ids_of(lm, prompts):
    """Tokens of the head that all prompts share, and of each prompt after it."""
    sequences = lm.chat_tokens(prompts)
    head = 0
    while len({tuple(ids[: head + 1]) for ids in sequences}) == 1:
        head += 1
    return head, [len(ids) - head for ids in sequences]
