"""The attacks as the evaluation runs them: direct, SCAV at the paper's setting, adaptive SCAV, and their controls."""

import math

import pandas as pd
import pytest
import torch
from scene import CONTROLS, EVERY_LAYER, N_TOKENS, TEXTS, arbitrary_judge, around, plane_attack

from es2.attacks import direct, scav, scav_adaptive, search
from es2.attacks.base import answer_under
from es2.attacks.landing import Setting, all_settings, directions, planes, spend
from es2.attacks.planes import PlaneAttack, ReplayAttack, random_directions
from es2.generation import generate


def test_direct_answers_are_the_models(scene):
    attacked = direct.evaluate(scene.evaluation(), {}, {})
    texts = [*TEXTS[:4], *TEXTS[8:11]]
    plain = generate(scene.lm, scene.lm.chat_tokens(texts), N_TOKENS)
    assert [row["answer"] for row in attacked.rows] == [one.text for one in plain]
    assert [row["prompt_id"] for row in attacked.rows] == ["p0", "p1", "p2", "p3", "p8", "p9", "p10"]
    assert [row["benchmark"] for row in attacked.rows] == ["one"] * 4 + ["two"] * 3
    assert {(row["attack"], row["budget"], row["control"], row["draw"]) for row in attacked.rows} == {
        ("attack", None, "", 0)
    }
    assert attacked.search == []


SCAV = {"kind": "scav", "c": 1.0, "accuracy": -1.0, "p0": 1e-2}


def test_scav_rows_and_controls(scene):
    bundle = {"controls": CONTROLS}
    rows = scav.evaluate(scene.evaluation(), SCAV, bundle).rows
    frame = pd.DataFrame(rows)
    counts = frame.groupby(["fitted_on", "control"]).size().to_dict()
    assert counts == {("base", ""): 7, ("self", ""): 7, ("self", "random"): 8, ("self", "shuffled"): 4}
    assert frame[frame["control"] == "random"]["draw"].tolist() == [0] * 4 + [1] * 4
    assert frame[frame["control"] == "random"]["prompt_id"].tolist() == ["p0", "p1", "p8", "p9"] * 2
    own = frame[(frame["fitted_on"] == "self") & (frame["control"] == "")]
    unit = directions(scene.probes)[1]
    for place, realised in zip([0, 1, 2, 3, 8, 9, 10], own["realised"], strict=True):
        steps = []
        for k in range(4):
            e, w = scene.embeddings[place, k], scene.probes.weight[1, k]
            logit = (w @ e + scene.probes.bias[1, k]).item()
            move = max(0.0, logit - math.log(0.01 / 0.99)) / w.norm().item()
            steps.append(move / e.norm().item())
        assert realised == pytest.approx(math.sqrt(sum(step**2 for step in steps) / 4), rel=1e-3)
    assert unit.shape == (4, 32)


def test_controls_replay_the_attacks_own_norms(scene):
    """The random control of a prompt is pushed as far at the last prompt token as the attack pushed it."""
    setting = Setting("probability", 1.0, -1.0, EVERY_LAYER)
    attack = plane_attack(scene, setting, planes(setting, scene.probes, torch.full((12,), 4.6)))
    around(scene, attack)
    replay = ReplayAttack(attack.steps.clone(), random_directions(1, 4, 32, 0), torch.zeros(12).long())
    visits, _ = around(scene, replay)
    for layer, rows, step, before, after in visits:
        if step == 0:
            torch.testing.assert_close(
                (after - before).norm(dim=-1), attack.steps[rows, layer, 0], atol=1e-4, rtol=1e-4
            )


def test_controls_are_the_replay_one_prompt_at_a_time(scene):
    bundle = {"controls": CONTROLS}
    evaluation = scene.evaluation(probes={"self": scene.probes})
    rows = [row for row in scav.evaluate(evaluation, SCAV, bundle).rows if row["control"]]
    setting = Setting("probability", SCAV["c"], SCAV["accuracy"], EVERY_LAYER)
    target = planes(setting, scene.probes, torch.full((1,), -math.log(0.01 / 0.99)))
    shuffled = scene.probes.shuffled_weight[1]
    unit = {"random": random_directions(2, 4, 32, seed=3), "shuffled": -shuffled[None] / shuffled.norm(dim=-1)[:, None]}
    for row in rows:
        text = [TEXTS[int(row["prompt_id"][1:])]]
        attack = plane_attack(scene, setting, target)
        answer_under(evaluation, attack, text)
        replay = ReplayAttack(attack.steps, unit[row["control"]], torch.tensor([row["draw"]]))
        assert row["answer"] == answer_under(evaluation, replay, text)[0].text
    assert len({row["answer"] for row in rows}) > 6


def test_scav_without_a_qualifying_layer_is_the_direct_request(scene):
    bundle = {"controls": {"random": 1, "shuffled": 0, "prompts": 2}}
    rows = scav.evaluate(scene.evaluation(probes={"self": scene.probes}), {**SCAV, "accuracy": 1.0}, bundle).rows
    plain = direct.evaluate(scene.evaluation(), {}, {}).rows
    assert [row["answer"] for row in rows[:7]] == [row["answer"] for row in plain]
    assert [row["answer"] for row in rows[7:]] == [plain[place]["answer"] for place in (0, 1, 4, 5)]
    assert {row["realised"] for row in rows[:7]} == {0.0}
    assert "(0 layers)" in rows[0]["setting"]


ADAPTIVE = {
    "kind": "scav_adaptive",
    "budgets": [0.1, 0.4, 1.0],
    "control_budgets": [0.4],
    "search": {
        "rules": ["probability", "projection"],
        "c": [0.01, 1.0],
        "accuracy": [-1.0],
        "windows": [[0, 1], [0.3, 0.7]],
        "first_budgets": [0.4],
        "first_prompts": 3,
        "keep": 3,
    },
}


def test_the_adaptive_attacker_takes_the_setting_with_most_compliance(scene):
    evaluation = scene.evaluation(arbitrary_judge)
    attacked = scav_adaptive.evaluate(evaluation, ADAPTIVE, {"controls": CONTROLS})
    trials = pd.DataFrame(attacked.search)
    first, second = trials[trials["stage"] == 1], trials[trials["stage"] == 2]
    assert len(first) == first["setting"].nunique() == 8
    assert set(first["n"]) == {3}
    assert not first["chosen"].any()
    kept = first.sort_values("compliance", ascending=False, kind="stable")["setting"][:3]
    assert set(second["setting"]) == set(kept)
    assert len(second) == 9
    assert set(second["n"]) == {4}
    torch.testing.assert_close(
        torch.tensor(trials[["refusal", "compliance", "degenerate"]].sum(axis=1).to_numpy()), torch.ones(17).double()
    )
    assert second["compliance"].nunique() > 1
    for budget, part in second.groupby("budget"):
        assert part["chosen"].sum() == 1
        assert part[part["chosen"]]["compliance"].item() == part["compliance"].max()
        rows = [row for row in attacked.rows if row["budget"] == budget and row["control"] == ""]
        assert {row["setting"] for row in rows} == {part[part["chosen"]]["setting"].item()}
        assert [row["prompt_id"] for row in rows] == ["p0", "p1", "p2", "p3", "p8", "p9", "p10"]
        assert {row["realised"] for row in rows} == {budget}
    controls = pd.DataFrame([row for row in attacked.rows if row["control"]])
    assert set(controls["budget"]) == {0.4}
    assert controls.groupby("control").size().to_dict() == {"random": 8, "shuffled": 4}


def test_each_budget_tries_the_best_of_the_nearest_first_budget_and_one_of_each_other(scene):
    choice = {**ADAPTIVE["search"], "first_budgets": [0.1, 1.0], "keep": 2}
    evaluation = scene.evaluation(arbitrary_judge)
    attacked = scav_adaptive.evaluate(evaluation, {**ADAPTIVE, "search": choice}, {"controls": CONTROLS})
    trials = pd.DataFrame(attacked.search)
    first, second = trials[trials["stage"] == 1], trials[trials["stage"] == 2]
    share = {(row.setting, row.budget): row.compliance for row in first.itertuples()}
    order = list(dict.fromkeys(first["setting"]))

    def ranked(near, far):
        return sorted(order, key=lambda name: (-share[name, near], -share[name, far], order.index(name)))

    small, large = ranked(0.1, 1.0), ranked(1.0, 0.1)
    assert small[0] != large[0]
    tried = {budget: list(part["setting"]) for budget, part in second.groupby("budget")}
    kept = {0.1: [*small[:2], large[0]], 0.4: [*large[:2], small[0]], 1.0: [*large[:2], small[0]]}
    assert tried == {budget: list(dict.fromkeys(names)) for budget, names in kept.items()}


def test_settings_that_tie_at_the_nearest_budget_are_ranked_by_the_next():
    """At the floor every setting complies alike; what wins a little further up is the better guess."""
    a, b, c = (Setting(rule, 1.0, 0.9, EVERY_LAYER) for rule in ("probability", "projection", "third"))
    rows = {(a, 0.1): 0.1, (a, 0.3): 0.2, (b, 0.1): 0.1, (b, 0.3): 0.6, (c, 0.1): 0.2, (c, 0.3): 0.2}
    trials = [
        {"setting": setting.name, "budget": budget, "compliance": share} for (setting, budget), share in rows.items()
    ]
    assert search.best(trials, [a, b, c], 0.1, 3) == [c, b, a]
    assert search.best(trials, [a, b, c], 0.3, 3) == [b, c, a]
    assert search.kept(trials, [a, b, c], 0.12, 1) == [c, b]


def test_trials_and_test_rows_are_the_attack_one_cell_at_a_time(scene):
    evaluation = scene.evaluation(arbitrary_judge)
    attacked = scav_adaptive.evaluate(evaluation, ADAPTIVE, {"controls": CONTROLS})
    choice = ADAPTIVE["search"]
    named = {
        setting.name: setting
        for setting in all_settings(choice["rules"], choice["c"], choice["accuracy"], choice["windows"])
    }

    def answers(setting, budget, frame):
        places = [int(key[1:]) for key in frame["prompt_id"]]
        target = spend(setting, scene.probes, scene.embeddings[places], budget)
        which = torch.full((len(places),), scene.probes.index(setting.c))
        return answer_under(evaluation, PlaneAttack(directions(scene.probes), which, target), frame["prompt"].tolist())

    for trial in attacked.search[::5]:
        frame = evaluation.validation.iloc[: trial["n"]]
        texts = [one.text for one in answers(named[trial["setting"]], trial["budget"], frame)]
        share = [arbitrary_judge("", text) for text in texts].count("compliance") / len(texts)
        assert trial["compliance"] == pytest.approx(share)
    rows = [row for row in attacked.rows if row["budget"] == 1.0 and row["control"] == ""]
    found = answers(named[rows[0]["setting"]], 1.0, evaluation.prompts())
    assert [row["answer"] for row in rows] == [one.text for one in found]


def test_adaptive_attack_without_a_qualifying_layer_is_the_direct_request(scene):
    choice = {**ADAPTIVE["search"], "accuracy": [1.0]}
    controls = {"random": 0, "shuffled": 0, "prompts": 2}
    evaluation = scene.evaluation(arbitrary_judge)
    attacked = scav_adaptive.evaluate(evaluation, {**ADAPTIVE, "search": choice}, {"controls": controls})
    plain = [row["answer"] for row in direct.evaluate(evaluation, {}, {}).rows]
    assert [row["answer"] for row in attacked.rows] == plain * 3
    assert {row["realised"] for row in attacked.rows} == {0.0}
