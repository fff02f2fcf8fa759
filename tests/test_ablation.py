"""Refusal-direction ablation: against edited weights, one prompt and direction at a time; its search and controls."""

import pandas as pd
import pytest
import torch
from scene import ABLATION, CONTROLS, IS_HARMFUL, N_TOKENS, TEXTS, arbitrary_judge, mean_direction

from es2.attacks import ablation
from es2.attacks.ablation import ProjectionAttack
from es2.attacks.base import answer_under
from es2.attacks.directions import mean_difference
from es2.attacks.planes import random_directions
from es2.batching import forward_after_head, pad_right, run_head
from es2.errors import UserError
from es2.generation import generate
from es2.losses.divergence import kl_divergence


def orthogonalised(lm, unit, instead):
    """The model with W - r u'W for every matrix W that writes to the stream (Arditi et al., section 2.4, has r = u)."""
    with torch.no_grad():
        embedding = lm.base.get_input_embeddings().weight
        embedding -= (embedding @ unit)[:, None] * instead
        for block in lm.blocks:
            for weight in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                weight -= instead[:, None] * (unit @ weight)
    return lm


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_ablation_and_its_control_equal_edited_weights(load_model, family, control):
    lm, weights = load_model(family), load_model(family)
    if weights.base.config.tie_word_embeddings:
        head = weights.base.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    unit, other = random_directions(1, 2, lm.width, 4)[0]
    attack = ProjectionAttack(unit, other) if control else ProjectionAttack(unit)
    tokens = lm.chat_tokens(TEXTS[:3])
    orthogonalised(weights, unit, other if control else unit)
    for ids in tokens:
        batch = torch.tensor([ids])
        with torch.no_grad(), attack.applied(lm):
            found = lm.model(input_ids=batch).logits
        with torch.no_grad():
            expected, plain = weights.model(input_ids=batch).logits, lm.model(input_ids=batch).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert (plain - expected).abs().max() > 0.1


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("rows", [3, 64])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_ablations_in_common_batches_answer_as_one_after_the_other(load_model, family, rows, head):
    """Each with its own run of the shared head, where the sequences have one."""
    lm = load_model(family)
    sequences = lm.chat_tokens(TEXTS[:5])
    if not head:
        sequences = [ids[place:] for place, ids in enumerate(sequences)]
        assert len({ids[0] for ids in sequences}) > 1
    units = random_directions(1, 4, lm.width, 4)[0]
    apart = []
    for unit in units:
        with ProjectionAttack(unit).applied(lm):
            apart += [one.tokens for one in generate(lm, sequences, N_TOKENS)]
    groups = [group for group in "abcd" for _ in sequences]
    with ProjectionAttack(units.repeat_interleave(5, dim=0)).applied(lm):
        together = generate(lm, sequences * 4, N_TOKENS, rows, groups=groups)
    assert [one.tokens for one in together] == apart
    assert len({tuple(map(tuple, apart[start : start + 5])) for start in range(0, 20, 5)}) == 4
    assert lm.cursor is None


def test_ablation_takes_the_layer_with_most_compliance_and_says_what_it_spent(scene):
    evaluation = scene.evaluation(arbitrary_judge)
    attacked = ablation.evaluate(evaluation, ABLATION, {"controls": CONTROLS})
    trials = pd.DataFrame(attacked.search)
    first, second = trials[trials["stage"] == 1], trials[trials["stage"] == 2]
    assert first["setting"].tolist() == [f"direction of layer {k}" for k in (1, 2, 3)]
    assert list(second["n"]) == [4, 4]
    chosen = second[second["chosen"]]
    assert chosen["compliance"].item() == second["compliance"].max()
    layer = int(chosen["setting"].item().split()[-1])
    unit = mean_direction(scene, IS_HARMFUL[:24])[layer]
    rows = [row for row in attacked.rows if not row["control"]]
    assert len(rows) == 7
    for row in rows:
        place = int(row["prompt_id"][1:])
        with ProjectionAttack(unit).applied(scene.lm):
            alone = generate(scene.lm, scene.lm.chat_tokens([TEXTS[place]]), N_TOKENS)[0].text
        assert row["answer"] == alone
        e = scene.embeddings[place]
        spent = ((e @ unit) / e.norm(dim=-1)).square().mean().sqrt().item()
        assert row["realised"] == pytest.approx(spent, rel=1e-4)
    controls = pd.DataFrame([row for row in attacked.rows if row["control"]])
    assert controls.groupby(["control", "draw"]).size().to_dict() == {
        ("random", 0): 4,
        ("random", 1): 4,
        ("shuffled", 0): 4,
    }


@pytest.mark.parametrize("bound", [None, 0.1])
def test_a_window_without_a_layer_is_a_user_error(scene, bound):
    search = {**ABLATION["search"], "window": [0.4, 0.5], "harmless_kl": bound}
    with pytest.raises(UserError, match=r"attacks\.\w+\.search\.window: no layer of 4 lies in \[0.4, 0.5\]; widen it"):
        ablation.evaluate(scene.evaluation(arbitrary_judge), {"search": search}, {"controls": CONTROLS})


def test_ablation_may_read_its_direction_at_each_token_after_a_prompt(scene):
    """Against whole passes, a prompt at a time, that keep what every block gives at every token."""
    lm, search = scene.lm, {**ABLATION["search"], "positions": None, "keep": 20}
    evaluation = scene.evaluation(arbitrary_judge)
    assert lm.n_after > 1
    places = [(back, layer) for back in range(lm.n_after) for layer in range(lm.n_layers)]
    states = []
    for ids in lm.chat_tokens(TEXTS[:24]):
        with torch.no_grad():
            given = lm.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[1:]
        states.append(torch.stack([given[layer][0, -1 - back] for back, layer in places]))
    values, harmful = torch.stack(states), IS_HARMFUL[:24]
    expected = torch.nn.functional.normalize(values[~harmful].mean(0) - values[harmful].mean(0), dim=-1)
    found = ablation.fitted(evaluation, None)
    assert [(one.back, one.layer) for one in found] == places
    inner = [place for place, (_, layer) in enumerate(places) if layer < lm.n_layers - 1]  # the last is normed there
    torch.testing.assert_close(torch.stack(list(found.values()))[inner], expected[inner], atol=1e-4, rtol=1e-3)
    tried = ablation.evaluate(evaluation, {"search": search}, {"controls": CONTROLS})
    names = [row["setting"] for row in tried.search if row["stage"] == 1]
    assert names[:4] == [*(f"direction of layer {k}" for k in (1, 2, 3)), "direction 1 earlier of layer 1"]
    assert len(names) == 3 * lm.n_after
    assert len(ablation.fitted(evaluation, 2)) == 2 * lm.n_layers


def test_ablation_keeps_to_directions_that_leave_harmless_prompts_alone(scene):
    evaluation = scene.evaluation(arbitrary_judge)
    units = mean_difference(evaluation)
    change = {k: ablation.first_token_kl(evaluation, ProjectionAttack(units[k])) for k in (1, 2, 3)}
    assert len(set(change.values())) == 3
    bound = sorted(change.values())[1]
    for limit, expected in ((bound, {k for k in change if change[k] <= bound}), (1e-9, {min(change, key=change.get)})):
        search = {**ABLATION["search"], "harmless_kl": limit, "keep": 3}
        attacked = ablation.evaluate(evaluation, {"search": search}, {"controls": CONTROLS})
        tried = {int(row["setting"].split()[-1]) for row in attacked.search}
        assert tried == expected


def test_ablation_without_a_bound_may_take_any_layer_of_the_window(scene):
    search = {**ABLATION["search"], "harmless_kl": None}
    attacked = ablation.evaluate(scene.evaluation(arbitrary_judge), {"search": search}, {"controls": CONTROLS})
    first = [row["setting"] for row in attacked.search if row["stage"] == 1]
    assert first == [f"direction of layer {k}" for k in (1, 2, 3)]


def test_first_token_kl_is_that_of_two_passes(scene):
    evaluation, lm = scene.evaluation(), scene.lm
    unit = mean_difference(evaluation)[2]
    texts = evaluation.harmless["prompt"].tolist()
    assert set(texts) == {text for text, harmful in zip(TEXTS[24:], IS_HARMFUL[24:], strict=True) if not harmful}
    values = []
    for ids in lm.chat_tokens(texts):
        with torch.no_grad():
            plain = lm.model(input_ids=torch.tensor([ids])).logits[0, -1]
            with ProjectionAttack(unit).applied(lm):
                attacked = lm.model(input_ids=torch.tensor([ids])).logits[0, -1]
        values.append(kl_divergence(attacked, plain).item())
    found = ablation.first_token_kl(evaluation, ProjectionAttack(unit))
    assert found == pytest.approx(sum(values) / len(values), rel=1e-4)


def test_hooks_of_ablation_are_gone_after_an_exception(load_model):
    lm = load_model()
    tokens = torch.tensor(lm.chat_tokens(TEXTS[:1]))
    before = lm.model(input_ids=tokens).logits
    with pytest.raises(RuntimeError), ProjectionAttack(torch.ones(lm.width)).applied(lm):
        raise RuntimeError
    assert torch.equal(before, lm.model(input_ids=tokens).logits)


def test_an_architecture_whose_middle_is_unknown_is_a_user_error(load_model):
    lm = load_model()
    del lm.blocks[0].post_attention_layernorm
    with pytest.raises(UserError, match="does not know where LlamaDecoderLayer"):
        with ProjectionAttack(torch.ones(lm.width)).applied(lm):
            pass


def test_controls_of_ablation_take_steps_as_long_along_other_directions(scene):
    evaluation = scene.evaluation(arbitrary_judge)
    attacked = ablation.evaluate(evaluation, ABLATION, {"controls": {**CONTROLS, "random": 1}})
    layer = int(attacked.rows[0]["setting"].split()[-1])
    unit = mean_difference(evaluation)[layer]
    others = {
        "random": random_directions(1, 1, scene.lm.width, evaluation.seed)[0, 0],
        "shuffled": mean_difference(evaluation, shuffle=evaluation.seed)[layer],
    }
    spent = {row["prompt_id"]: row["realised"] for row in attacked.rows if not row["control"]}
    for control, other in others.items():
        rows = [row for row in attacked.rows if row["control"] == control]
        texts = [TEXTS[int(row["prompt_id"][1:])] for row in rows]
        assert [row["answer"] for row in rows] == [
            one.text for one in answer_under(evaluation, ProjectionAttack(unit, other), texts)
        ]
        assert rows
        assert [row["realised"] for row in rows] == [spent[row["prompt_id"]] for row in rows]


def test_the_shared_head_is_ablated_too(scene):
    """The template's head runs apart, once: its keys and values must come from the ablated model as well."""
    lm, unit = scene.lm, torch.nn.functional.normalize(torch.ones(scene.lm.width), dim=0)
    ids = lm.chat_tokens(TEXTS[:1])[0]
    with torch.no_grad(), ProjectionAttack(unit).applied(lm):
        whole = lm.decoder(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        states, _ = forward_after_head(lm, run_head(lm, ids[:4]), 4, pad_right([ids[4:]], lm.device))
    torch.testing.assert_close(states[0, -1], whole, atol=1e-5, rtol=1e-4)
