"""At which token an ablation turns an answer: against a naive pass, and the figure."""

import pandas as pd
import pytest
import torch
from oracles import add_random_lora
from synthetic import LABELS, MODEL
from training_bench import HARMFUL

from es2.attacks.ablation import ProjectionAttack
from es2.losses.divergence import kl_divergence
from es2.plots.turning import SHOWN, turning_figure
from es2.reference import record
from es2.reporting import Study
from es2.tables.directions import chosen_direction
from es2.turning import measure_turning, refusals_of

STUDY = Study(MODEL, ("base", "refusal_sft", "hold", "es2"), labels=LABELS)


def test_divergences_by_token_against_a_pass_of_both_models_a_prompt(load_model):
    parent, child = load_model(), add_random_lora(load_model(), scale=0.05)
    texts = {str(place): text for place, text in enumerate(HARMFUL)}
    references = record(parent, texts, lambda prompt, _: "compliance" if prompt == HARMFUL[0] else "refusal", 5)
    refusals = refusals_of(references)
    assert [one.prompt_id for one in refusals] == list(texts)[1:]
    unit = torch.nn.functional.normalize(torch.randn(child.width, generator=torch.Generator().manual_seed(0)), dim=0)
    table = measure_turning(child, refusals, unit)
    sums = {name: {} for name in ("kl", "kl_ablated")}

    def along(lm, one):
        ids = torch.tensor([[*one.prompt_tokens, *one.answer_tokens[:-1]]])
        with torch.no_grad():
            return lm.model(input_ids=ids, use_cache=False).logits[0, len(one.prompt_tokens) - 1 :]

    for one in refusals:
        before = along(parent, one)
        found = {"kl": along(child, one)}
        with ProjectionAttack(unit).applied(child):
            found["kl_ablated"] = along(child, one)
        for name, logits in found.items():
            for token, value in enumerate(kl_divergence(logits, before).tolist(), start=1):
                sums[name].setdefault(token, []).append(value)
    assert table["token"].tolist() == sorted(sums["kl"])
    assert table["n"].tolist() == [len(sums["kl"][token]) for token in table["token"]]
    for name, values in sums.items():
        expected = [sum(values[token]) / len(values[token]) for token in table["token"]]
        assert table[name].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert (table["kl_ablated"] - table["kl"]).abs().max() > 1e-3


def test_a_parent_that_refused_nothing_gives_an_empty_table(load_model):
    lm = load_model()
    table = measure_turning(lm, [], torch.ones(lm.width) / lm.width**0.5)
    assert table.columns.tolist() == ["token", "n", "kl", "kl_ablated"]
    assert table.empty


def test_refusals_are_spread_over_all_references(load_model):
    references = record(load_model(), {str(place): HARMFUL[0] for place in range(10)}, lambda *_: "refusal", 1)
    for most, expected in ((3, "036"), (6, "013568"), (10, "0123456789"), (20, "0123456789")):
        assert [one.prompt_id for one in refusals_of(references, most=most)] == list(expected)
    assert refusals_of(references[:0]) == []


def test_the_layer_is_the_one_that_the_attacker_took():
    stages = pd.DataFrame({"setting": ["direction of layer 3", "direction of layer 12"], "chosen": [False, True]})
    assert chosen_direction(stages) == (12, 0)
    assert chosen_direction(stages.assign(setting="direction 4 earlier of layer 7")) == (7, 4)


def test_the_figure_has_a_line_a_run_and_the_mean_over_all_tokens_beside_it():
    rows = [
        {"run": run, "model": MODEL, "seed": 0, "token": token, "n": 4, "kl_ablated": value if token == 1 else 0.0}
        for run, value in (("hold", 2.0), ("es2", 5.0))
        for token in range(1, 21)
    ]
    (panel,) = turning_figure(pd.DataFrame(rows), STUDY).axes
    lines = {line.get_label(): line for line in panel.lines}
    assert list(lines["_es2"].get_xdata()) == list(range(1, SHOWN + 1))
    assert lines["_es2"].get_ydata()[0] == 5.0
    assert list(lines["_mean_es2"].get_ydata()) == [0.25]
    assert list(lines["_mean_hold"].get_ydata()) == [pytest.approx(0.1)]


def test_without_refusals_the_figure_says_so():
    empty = pd.DataFrame({"run": [], "model": [], "seed": [], "token": [], "n": [], "kl_ablated": []})
    figure = turning_figure(empty, STUDY)
    assert [text.get_text() for panel in figure.axes for text in panel.texts] == ["no refusals under ablation"]
