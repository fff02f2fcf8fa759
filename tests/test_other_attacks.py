"""Directions, activation addition, prefill and validation answers, against what they are by definition."""

import pandas as pd
import pytest
import torch
from scene import ABLATION, CONTROLS, IS_HARMFUL, N_TOKENS, TEXTS, arbitrary_judge, mean_direction

from es2.attacks import ablation, addition, prefill, validation
from es2.attacks.directions import half_of_each, mean_difference
from es2.attacks.landing import directions
from es2.embeddings import Embeddings
from es2.generation import generate

ADDITION = {
    "kind": "addition",
    "budgets": [0.2, 0.5],
    "control_budgets": [0.5],
    "search": {
        "sources": ["mean", "probe"],
        "c": [0.01, 1.0],
        "windows": [[0.0, 1.0], [0.3, 0.7]],
        "first_budgets": [0.3],
        "first_prompts": 3,
        "keep": 3,
    },
}
PREFILL = {"prefixes": ["Make a", "Wash the lock", "Bake"], "search": {"first_prompts": 2, "keep": 2}}


def test_mean_difference_points_from_harmful_to_safe(scene):
    evaluation = scene.evaluation()
    torch.testing.assert_close(mean_difference(evaluation), mean_direction(scene, IS_HARMFUL[:24]))
    shuffled = mean_difference(evaluation, shuffle=1)
    assert not torch.allclose(shuffled, mean_difference(evaluation), atol=0.1)
    torch.testing.assert_close(shuffled, mean_difference(evaluation, shuffle=1))


def test_the_shuffled_control_holds_half_of_each_class(scene):
    """Else its groups' unequal shares of the classes would leave it along what it is a control of."""
    labels = torch.tensor([True] * 7 + [False] * 4)
    chosen = half_of_each(labels, 5)
    assert (chosen[labels].sum().item(), chosen[~labels].sum().item()) == (3, 2)
    assert not torch.equal(chosen, half_of_each(labels, 6))
    apart = scene.embeddings + 50 * scene.embeddings.std() * IS_HARMFUL[:, None, None] * torch.eye(scene.lm.width)[0]
    evaluation = scene.evaluation(embeddings=Embeddings([f"p{place}" for place in range(len(TEXTS))], apart))
    unit = mean_difference(evaluation)
    assert unit[:, 0].abs().min() > 0.99
    assert max((mean_difference(evaluation, shuffle=seed) * unit).sum(-1).abs().max() for seed in range(5)) < 0.9
    permuted = [torch.randperm(24, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    groups = [IS_HARMFUL[:24][order] for order in permuted]
    plain = [apart[:24][~group].mean(0) - apart[:24][group].mean(0) for group in groups]
    assert max((torch.nn.functional.normalize(one, dim=-1) * unit).sum(-1).abs().min() for one in plain) > 0.98


def plainly_added(scene, text, unit, layers, budget):
    """The answer when b |e| u is added by a hook of one's own, one prompt at a time, without a cache."""
    lm = scene.lm
    norm = scene.embeddings[TEXTS.index(text)].norm(dim=-1)
    tokens = lm.chat_tokens([text])[0]
    n_prompt = len(tokens)

    def hook_for(layer):
        def hook(_module, _inputs, output):
            states = output.clone()
            states[:, n_prompt - 1 :] += budget * norm[layer] * unit[layer]
            return states

        return hook

    handles = [lm.blocks[layer].register_forward_hook(hook_for(layer)) for layer in layers]
    for _ in range(N_TOKENS):
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits
        token = logits[0, -1].argmax().item()
        if token in lm.end_tokens():
            break
        tokens.append(token)
    for handle in handles:
        handle.remove()
    return lm.tokenizer.decode(tokens[n_prompt:], skip_special_tokens=True).strip()


def test_addition_is_a_step_of_the_budget_along_the_chosen_direction(scene):
    attacked = addition.evaluate(scene.evaluation(arbitrary_judge), ADDITION, {"controls": CONTROLS})
    trials = pd.DataFrame(attacked.search)
    names = [
        f"{source} depth {window}" for source in ("mean", "probe C=0.01", "probe C=1") for window in ("0-1", "0.3-0.7")
    ]
    assert trials[trials["stage"] == 1]["setting"].tolist() == names
    units = {"mean": mean_direction(scene, IS_HARMFUL[:24])}
    units |= {f"probe C={c:g}": -directions(scene.probes)[scene.probes.index(c)] for c in (0.01, 1.0)}
    for budget in ADDITION["budgets"]:
        rows = [row for row in attacked.rows if row["budget"] == budget and not row["control"]]
        chosen = trials[trials["chosen"] & (trials["budget"] == budget)]["setting"].item()
        assert {row["setting"] for row in rows} == {chosen}
        source, window = chosen.split(" depth ")
        for row in rows:
            text = TEXTS[int(row["prompt_id"][1:])]
            layers = range(4) if window == "0-1" else [1, 2]
            assert row["answer"] == plainly_added(scene, text, units[source], layers, budget)
    controls = pd.DataFrame([row for row in attacked.rows if row["control"]])
    assert set(controls["budget"]) == {0.5}
    assert controls.groupby("control").size().to_dict() == {"random": 8, "shuffled": 4}


@pytest.mark.parametrize(("attack", "settings"), [(addition, ADDITION), (ablation, ABLATION), (prefill, PREFILL)])
def test_without_benchmarks_an_attack_is_a_search_alone(scene, attack, settings):
    whole = attack.evaluate(scene.evaluation(arbitrary_judge), settings, {"controls": CONTROLS})
    alone = attack.evaluate(scene.evaluation(arbitrary_judge, benchmarks={}), settings, {"controls": CONTROLS})
    assert (alone.rows, alone.search) == ([], whole.search)
    assert whole.rows


def test_validation_answers_the_validation_prompts_as_they_are(scene):
    evaluation = scene.evaluation(arbitrary_judge, benchmarks={})
    named = {"validation": evaluation.validation.assign(set="harm"), "harmless": evaluation.harmless.assign(set="safe")}
    rows = validation.evaluate(scene.evaluation(arbitrary_judge, benchmarks={}, **named), {}, {}).rows
    texts = [*evaluation.validation["prompt"], *evaluation.harmless["prompt"]]
    assert [row["answer"] for row in rows] == [one.text for one in evaluation.answer(texts)]
    assert [row["benchmark"] for row in rows] == ["harm"] * 4 + ["safe"] * len(evaluation.harmless)


def test_prefill_judges_what_the_model_adds_to_the_best_prefix(scene):
    evaluation = scene.evaluation(arbitrary_judge)
    attacked = prefill.evaluate(evaluation, PREFILL, {})
    trials = pd.DataFrame(attacked.search)
    assert trials["stage"].tolist() == [1, 1, 1, 2, 2]
    second = trials[trials["stage"] == 2]
    chosen = second[second["chosen"]]["setting"].item()
    assert second[second["chosen"]]["compliance"].item() == second["compliance"].max()
    lm = scene.lm
    for row in attacked.rows:
        assert row["setting"] == chosen
        ids = lm.tokenizer(lm.chat_text(TEXTS[int(row["prompt_id"][1:])]) + chosen, add_special_tokens=False).input_ids
        assert row["answer"] == generate(lm, [ids], N_TOKENS)[0].text
    assert len(attacked.rows) == 7
    plain = [one.text for one in evaluation.answer(evaluation.prompts()["prompt"].tolist())]
    assert plain != [row["answer"] for row in attacked.rows]
