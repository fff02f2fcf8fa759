"""Attacks as fitted on another model: what is fitted there is taken to the model that is attacked, and chosen on it."""

import pytest
import torch
from scene import (
    ABLATION,
    CONTROLS,
    IS_HARMFUL,
    SOFT_PROMPT,
    TARGETS,
    TEXTS,
    Scene,
    arbitrary_judge,
    mean_direction,
)

from es2.attacks import ablation, addition, scav_adaptive, soft_prompt
from es2.attacks.ablation import ProjectionAttack
from es2.attacks.base import Source, answer_under
from es2.attacks.landing import directions
from es2.embeddings import Embeddings, unit_difference
from es2.errors import UserError

SEARCH = {"c": [0.01, 1.0], "windows": [[0.0, 1.0]], "first_budgets": [0.3], "first_prompts": 3, "keep": 2}
OVER_BUDGETS = {"budgets": [0.5], "control_budgets": [0.5]}


def shaken(lm):
    """The model with noise on its weights, as large as they are."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in lm.base.parameters():
            if weight.ndim == 2:
                weight += weight.std() * torch.randn(weight.shape, generator=generator)
    return lm


class Pair:
    """A model that is attacked and another, of the same shape, that the attack is fitted on."""

    def __init__(self, scene, load_model):
        self.own, self.other = scene, Scene(lambda family: shaken(load_model(family)))
        self.loaded = 0

    def load(self):
        self.loaded += 1
        return self.other.lm

    def evaluation(self, **changes):
        embeddings = Embeddings([f"p{place}" for place in range(len(TEXTS))], self.other.embeddings)
        given = {"probes": {"parent": self.other.probes}, "sources": {"parent": Source(embeddings, self.load)}}
        return self.own.evaluation(arbitrary_judge, **{**given, **changes})

    def says(self, attack, rows):
        """What the attacked model answers to the prompts of answer rows."""
        texts = [TEXTS[int(row["prompt_id"][1:])] for row in rows]
        return [one.text for one in answer_under(self.own.evaluation(), attack, texts)]


@pytest.fixture
def pair(scene, load_model):
    return Pair(scene, load_model)


def attacked_rows(attacked):
    assert {row["fitted_on"] for row in attacked.rows} == {"parent"}
    return [row for row in attacked.rows if not row["control"]]


def test_the_other_model_is_another(pair):
    assert not torch.allclose(pair.own.embeddings, pair.other.embeddings, atol=0.1)


def test_ablation_projects_out_the_other_models_direction(pair):
    attacked = ablation.evaluate(pair.evaluation(), ABLATION, {"controls": CONTROLS})
    rows = attacked_rows(attacked)
    unit = mean_direction(pair.other, IS_HARMFUL[:24])[int(rows[0]["setting"].split()[-1])]
    assert [row["answer"] for row in rows] == pair.says(ProjectionAttack(unit), rows)
    assert pair.loaded == 0  # the last token's embeddings are at hand
    e = pair.own.embeddings[int(rows[0]["prompt_id"][1:])]
    spent = ((e @ unit) / e.norm(dim=-1)).square().mean().sqrt().item()
    assert rows[0]["realised"] == pytest.approx(spent, rel=1e-4)


def test_earlier_tokens_are_read_on_the_other_model(pair):
    found = ablation.fitted(pair.evaluation(), 2)
    assert pair.loaded == 1
    of_itself = ablation.fitted(pair.other.evaluation(), 2)
    assert len(found) == len(of_itself) == 2 * pair.own.lm.n_layers
    torch.testing.assert_close(torch.stack(list(found.values())), torch.stack(list(of_itself.values())))


@pytest.mark.parametrize("source", ["mean", "probe"])
def test_addition_pushes_along_the_other_models_direction(pair, source):
    settings = OVER_BUDGETS | {"search": SEARCH | {"sources": [source], "c": [1.0]}}
    rows = attacked_rows(addition.evaluate(pair.evaluation(), settings, {"controls": CONTROLS}))
    means = unit_difference(pair.other.embeddings[:24], IS_HARMFUL[:24])
    unit = means if source == "mean" else -directions(pair.other.probes)[1]
    norms = [pair.own.embeddings[int(row["prompt_id"][1:])].norm(dim=-1) for row in rows]
    texts = [TEXTS[int(row["prompt_id"][1:])] for row in rows]
    cell = addition.Cell(addition.AdditionSetting(source, 1.0, (0.0, 1.0)), 0.5)
    evaluation = pair.evaluation()
    name = cell.setting.direction
    frame = evaluation.prompts()
    answers, steps = addition.attack_cells(evaluation, {name: unit}, frame, [cell])
    assert [row["answer"] for row in rows] == [one.text for one in answers[0]]
    torch.testing.assert_close(steps[0, :, :, 0], 0.5 * torch.stack(norms))
    assert frame["prompt"].tolist() == texts


def test_scav_lands_by_the_other_models_probes(pair):
    settings = OVER_BUDGETS | {"search": SEARCH | {"rules": ["probability", "projection"], "accuracy": [-1.0]}}
    taken = scav_adaptive.evaluate(pair.evaluation(), settings, {"controls": CONTROLS})
    stolen = pair.own.evaluation(arbitrary_judge, probes={"self": pair.other.probes})
    same = scav_adaptive.evaluate(stolen, settings, {"controls": CONTROLS})
    assert len(attacked_rows(taken)) == 7
    assert [row["answer"] for row in taken.rows] == [row["answer"] for row in same.rows]
    assert taken.search == same.search
    assert pair.loaded == 0


def test_a_soft_prompt_is_trained_on_the_other_model(pair):
    given = {"targets": TARGETS}
    found = soft_prompt.train_soft_prompt(pair.evaluation(**given), SOFT_PROMPT)
    of_itself = soft_prompt.train_soft_prompt(pair.other.evaluation(**given), SOFT_PROMPT)
    torch.testing.assert_close(found[0].vectors, of_itself[0].vectors)
    rows = attacked_rows(soft_prompt.evaluate(pair.evaluation(**given), SOFT_PROMPT, {}))
    texts = [TEXTS[int(row["prompt_id"][1:])] for row in rows]
    evaluation = pair.own.evaluation()
    taken = next(one for one in of_itself if one.name == rows[0]["setting"])
    with taken.applied(pair.own.lm):
        expected = evaluation.complete(taken.tokens(pair.own.lm, texts))
    assert [row["answer"] for row in rows] == [one.text for one in expected]


def test_the_other_models_embeddings_must_be_there(pair):
    with pytest.raises(UserError, match="embeddings"):
        ablation.evaluate(
            pair.evaluation(sources={"parent": Source(None, pair.load)}), ABLATION, {"controls": CONTROLS}
        )
