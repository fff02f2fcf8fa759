"""Edits of the residual stream on a tiny model, every one measured by hooks around it (method.md sections 2 and 6)."""

import math

import pytest
import torch
from oracles import edited_answer
from scene import EVERY_LAYER, N_TOKENS, Scene, around, plane_attack

from es2.activations import record_residual
from es2.attacks.landing import Setting, all_settings, directions, planes, spend
from es2.attacks.planes import PlaneAttack, ReplayAttack, random_directions, relative_budget
from es2.errors import UserError
from es2.generation import generate


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("c", [0.01, 100.0])
def test_scav_lands_on_its_probability_wherever_it_edits(load_model, family, c):
    scene = Scene(load_model, family)
    at = scene.probes.index(c)
    wanted = scene.probes.logit(scene.embeddings[:12])[at].median().item()
    setting = Setting("probability", c, -1.0, EVERY_LAYER)
    target = planes(setting, scene.probes, torch.full((12,), -wanted))
    target[:, 0] = torch.inf
    visits, _ = around(scene, plane_attack(scene, setting, target))
    edited, untouched = 0, 0
    for layer, _, _, before, after in visits:
        if layer == 0:
            assert torch.equal(before, after)
            continue
        w, b = scene.probes.weight[at, layer], scene.probes.bias[at, layer]
        logit_before, logit_after = before @ w + b, after @ w + b
        over = logit_before > wanted + 1e-4
        below = logit_before < wanted - 1e-4
        assert (logit_after <= wanted + 1e-3).all()
        assert ((logit_after - wanted).abs()[over] < 1e-3).all()
        assert torch.equal(after[below], before[below])
        # The edit is along the probe alone: the part across it stays.
        u = w / w.norm()
        across = (after - before) - ((after - before) @ u)[:, None] * u
        assert across.abs().max() < 1e-4
        edited, untouched = edited + int(over.sum()), untouched + int(below.sum())
    assert edited > 20
    assert untouched > 20


def test_scav_is_the_papers_formula(scene):
    p0, at, layer = 0.2, 1, 2
    setting = Setting("probability", 1.0, 0.0, EVERY_LAYER)
    logit = math.log(p0 / (1 - p0))
    attack = plane_attack(scene, setting, planes(setting, scene.probes, torch.full((12,), -logit)))
    e = scene.embeddings[:12, layer]
    found = attack.edit(layer, e, torch.arange(12), 0)
    w, b = scene.probes.weight[at, layer].double(), scene.probes.bias[at, layer].double()
    for place, one in enumerate(e.double()):
        probability = torch.sigmoid(w @ one + b)
        expected = one + (probability > p0) * (logit - b - w @ one) / w.norm() * w / w.norm()
        torch.testing.assert_close(found[place].double(), expected, atol=1e-4, rtol=1e-4)


def test_steps_are_recorded_where_a_row_was_alive(scene):
    setting = Setting("probability", 1.0, -1.0, EVERY_LAYER)
    target = planes(setting, scene.probes, torch.full((12,), 1.0))
    _, whole = around(scene, plane_attack(scene, setting, target))
    scene.lm.base.generation_config.eos_token_id = [1, whole[0].tokens[2]]
    attack = plane_attack(scene, setting, target)
    visits, answers = around(scene, attack)
    seen = torch.full_like(attack.steps, torch.nan)
    for layer, rows, step, before, after in visits:
        seen[rows, layer, step] = (after - before).norm(dim=-1)
    torch.testing.assert_close(attack.steps, seen, atol=1e-4, rtol=1e-4, equal_nan=True)
    for row, one in enumerate(answers):
        alive = min(N_TOKENS, len(one.tokens) + one.finished)
        assert attack.steps[row].isnan().all(dim=0).tolist() == [step >= alive for step in range(N_TOKENS)]
    assert any(one.finished for one in answers)


def test_rows_of_one_batch_keep_their_own_settings(scene):
    """Many settings in one batch give what each gives alone, recomputed without a cache."""
    settings = [Setting("probability", 0.01, 0.0, EVERY_LAYER), Setting("projection", 100.0, 0.0, (0.0, 0.5))]
    tokens = scene.tokens[:3]
    e = scene.embeddings[:3]
    target = torch.cat([spend(setting, scene.probes, e, 0.3) for setting in settings])
    which = torch.tensor([0, 0, 0, 2, 2, 2])
    attack = PlaneAttack(directions(scene.probes), which, target)
    with attack.applied(scene.lm):
        found = generate(scene.lm, tokens * 2, N_TOKENS, batch_rows=4)
    for row, one in enumerate(found):
        chosen = torch.nonzero(torch.isfinite(target[row])).squeeze(1).tolist()
        alone = PlaneAttack(directions(scene.probes), which[row : row + 1], target[row : row + 1])

        def edit(layer, states, rows, step, alone=alone):
            return alone.edit(layer, states, torch.zeros_like(rows), step)

        assert one.tokens == edited_answer(scene.lm, tokens[row % 3], N_TOKENS, chosen, edit, row)


@pytest.mark.parametrize("rule", ["probability", "projection"])
@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("window", [EVERY_LAYER, (0.3, 0.7)])
def test_spend_hits_the_budget(scene, rule, c, window):
    setting = Setting(rule, c, -1.0, window)
    e = scene.embeddings
    unit = directions(scene.probes)[scene.probes.index(c)]
    for budget in (0.003, 0.05, 0.7):
        target = spend(setting, scene.probes, e, budget)
        layers = setting.layers(scene.probes)
        assert torch.isfinite(target).any(dim=0).nonzero().squeeze(1).tolist() == layers
        for row in range(len(e)):
            steps = [max(0.0, (e[row, k] @ unit[k] - target[row, k]).item()) / e[row, k].norm().item() for k in layers]
            spent = math.sqrt(sum(step**2 for step in steps) / len(steps))
            assert spent == pytest.approx(budget, rel=1e-4)


def test_landing_by_projection_at_one_is_the_safe_mean(scene):
    setting = Setting("projection", 1.0, -1.0, EVERY_LAYER)
    norm = scene.probes.weight[1].norm(dim=-1)
    target = planes(setting, scene.probes, torch.tensor([0.0, 1.0, 2.0])) * norm
    torch.testing.assert_close(target[0], scene.probes.mu_harmful[1])
    torch.testing.assert_close(target[1], scene.probes.mu_safe[1])
    torch.testing.assert_close(
        target[2], 2 * scene.probes.mu_safe[1] - scene.probes.mu_harmful[1], atol=1e-4, rtol=1e-4
    )


def test_layers_of_a_setting(scene):
    probes = scene.probes
    accuracy = probes.accuracy[1].tolist()
    bound = sorted(accuracy)[1]
    assert Setting("probability", 1.0, bound, EVERY_LAYER).layers(probes) == [
        k for k in range(4) if accuracy[k] > bound
    ]
    assert Setting("probability", 1.0, -1.0, (0.3, 0.7)).layers(probes) == [1, 2]
    with pytest.raises(UserError, match="C = 7"):
        Setting("probability", 7.0, 0.0, EVERY_LAYER).layers(probes)
    settings = all_settings(["a", "b"], [1, 2], [0.8], [(0, 1), (0, 0.5)])
    assert len(settings) == len({setting.name for setting in settings}) == 8


@pytest.mark.parametrize("rule", ["probability", "projection"])
def test_no_budget_and_no_layer_edit_nothing(scene, rule):
    plain = [one.tokens for one in generate(scene.lm, scene.tokens, N_TOKENS)]
    for setting, budget in (
        (Setting(rule, 1.0, -1.0, EVERY_LAYER), 0.0),
        (Setting(rule, 1.0, 1.0, EVERY_LAYER), 0.5),
    ):
        target = spend(setting, scene.probes, scene.embeddings[:12], budget)
        assert torch.isinf(target).all()
        visits, answers = around(scene, plane_attack(scene, setting, target))
        assert all(torch.equal(before, after) for *_, before, after in visits)
        assert [one.tokens for one in answers] == plain
    setting = Setting(rule, 1.0, -1.0, EVERY_LAYER)
    pushed = plane_attack(scene, setting, spend(setting, scene.probes, scene.embeddings[:12], 0.5))
    assert [one.tokens for one in around(scene, pushed)[1]] != plain


def test_a_budget_without_edited_layers_is_zero():
    e = torch.ones(2, 3, 4)
    unit = torch.tensor([1.0, 0, 0, 0]).expand(3, 4)
    target = torch.full((2, 3), torch.inf)
    target[1, 0], target[1, 2] = 0.5, 2.0
    expected = [0.0, math.sqrt((0.25**2 + 0) / 2)]
    assert relative_budget(e, unit, target).tolist() == pytest.approx(expected)


def test_replay_pushes_by_exactly_the_recorded_norms(scene):
    torch.manual_seed(0)
    steps = torch.rand(12, 4, 3)
    steps[:, 1] = 0.0
    steps[2, :, 1:] = torch.nan
    given = steps.clone()
    which = torch.arange(12) % 2
    unit = random_directions(2, 4, 32, seed=0)
    attack = ReplayAttack(steps, unit, which)
    assert attack.layers == [0, 2, 3]
    visits, _ = around(scene, attack)
    assert {step for *_, step, _, _ in [(v[0], v[1], v[2], v[3], v[4]) for v in visits]} == set(range(N_TOKENS))
    for layer, rows, step, before, after in visits:
        for place, row in enumerate(rows.tolist()):
            recorded = given[row, layer]
            mean = torch.nanmean(recorded)
            norm = recorded[min(step, 2)]
            norm = mean if norm.isnan() else norm
            expected = norm * unit[which[row], layer]
            torch.testing.assert_close(after[place] - before[place], expected, atol=1e-5, rtol=1e-4)


def test_replay_of_nothing_recorded_pushes_nothing(scene):
    attack = ReplayAttack(torch.full((12, 4, 3), torch.nan), random_directions(1, 4, 32, 0), torch.zeros(12).long())
    assert attack.layers == []


def test_random_directions():
    unit = random_directions(3, 4, 32, seed=1)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(3, 4))
    assert torch.equal(unit, random_directions(3, 4, 32, seed=1))
    assert not torch.equal(unit, random_directions(3, 4, 32, seed=2))
    flat = unit.reshape(12, 32)
    assert (flat @ flat.T - torch.eye(12)).abs().max() < 0.8


def test_record_sees_what_later_layers_read(scene):
    """record_residual registered after an attack sees the edited stream, so that the tests above measure the edit."""
    setting = Setting("probability", 1.0, -1.0, EVERY_LAYER)
    target = planes(setting, scene.probes, torch.full((12,), 4.6))
    attack = plane_attack(scene, setting, target)
    with attack.applied(scene.lm), record_residual(scene.lm, [3]) as recorded:
        generate(scene.lm, scene.tokens[:1], 1)
    w = directions(scene.probes)[1, 3]
    assert (recorded[3] @ w).item() <= target[0, 3].item() + 1e-4
