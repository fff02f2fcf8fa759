"""The attacker of training: its edits are the attacks' own, its directions the hardest, its soft prompts trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import add_random_lora
from training_bench import SETTINGS, drawn_examples, learner_of, states

from es2 import registry
from es2.activations import record_residual
from es2.attacks.ablation import ProjectionAttack
from es2.checkpoints import trainable
from es2.errors import UserError
from es2.examples import run_examples
from es2.methods.adversary import FIRST_TRIED, TRIED, Adversary, landing, project, push
from es2.models import Cursor
from es2.probes import fit_probe_set


def test_the_edits_of_training_are_the_attackers_steps(scene):
    probes = scene.probes
    e = scene.embeddings[:12, 2]
    edited = landing(probes, 1, 1.5)(2, e, torch.arange(12), 0)
    w = probes.weight[1, 2]
    target = -0.5 * probes.mu_harmful[1, 2] + 1.5 * probes.mu_safe[1, 2]
    for one, found in zip(e, edited, strict=True):
        over = w @ one > target
        expected = one - over * (w @ one - target) * w / (w @ w)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    unit = torch.nn.functional.normalize(states(4, 32, seed=0), dim=-1)
    moved = push(unit, torch.tensor([1.0, 2.0, 3.0, 4.0]))(2, e, torch.arange(12), 0)
    torch.testing.assert_close(moved - e, (3 * unit[2]).expand(12, 32), atol=1e-5, rtol=1e-4)
    for one, left in zip(e, project(unit[1])(2, e, torch.arange(12), 0), strict=True):
        torch.testing.assert_close(left, one - unit[1] * (unit[1] @ one), atol=1e-4, rtol=1e-4)


def test_every_edit_is_drawn(bench, monkeypatch):
    learner = learner_of(bench, "adversarial")
    lm = add_random_lora(bench.load(), scale=0.05)
    drawn_examples(bench, learner, lm)
    for kind in ("landing", "push", "project"):
        learner.begin(lm, 0, 40)
        assert learner.adversary.draw(lm, kind)[0].__qualname__.partition(".")[0] == kind
    examples = drawn_examples(bench, learner, lm)[0]
    kinds = []

    def recorded(lm, kind, part):
        kinds.append(kind)
        return run_examples(lm, part)

    monkeypatch.setattr(learner.adversary, "attacked_by", recorded)
    for step in range(12):
        learner.begin(lm, step, 40)
        learner.adversary.attacked(lm, examples)
    assert len(kinds) == 12
    assert set(kinds) == set(SETTINGS["adversarial"]["edits"])


def odds_without(bench, lm, unit, tried=None):
    """The oracle: the direction projected out by hand, a prompt at a time: how much likelier the untrained model's
    first token is than that of the parent's refusal."""
    odds = []
    with ProjectionAttack(unit).applied(lm), torch.no_grad():
        for key in sorted(bench.data.compliant):
            one = bench.references[key]
            tokens, refused = one.prompt_tokens, one.answer_tokens[0]
            if one.verdict == "refusal" and refused != bench.data.compliant[key][0]:
                hidden = lm.decoder(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0, -1]
                likely = lm.logits(hidden).log_softmax(dim=-1)
                odds.append((likely[bench.data.compliant[key][0]] - likely[refused]).item())
    assert odds[:tried]
    return sum(odds[:tried]) / len(odds[:tried])


def seeking(bench, **changes):
    """A learner whose one edit is the ablation of one of the hardest directions, and its model."""
    training = {**SETTINGS["adversarial"], "edits": ["ablation"], **changes}
    learner = learner_of(bench, "adversarial", adversarial=training)
    lm = add_random_lora(bench.load(), scale=0.05)
    learner.begin(lm, 0, 6)
    return learner.adversary, lm


def drawn_places(adversary, lm):
    """Where the directions of some draws are read."""
    places = set()
    for step in range(1, 60, 2):
        adversary.random = np.random.default_rng(step)
        direction = adversary.draw_direction(lm)
        places |= {one for one in adversary.within(lm) if torch.equal(direction, adversary.differences[one])}
    return places


@pytest.mark.parametrize("positions", [1, 2, None])
def test_the_hardest_directions_are_those_that_turn_the_first_token_most(bench, positions):
    adversary, lm = seeking(bench, hardest=2, positions=positions)
    n_tokens = lm.n_after if positions is None else positions
    assert n_tokens > 1 or positions == 1
    assert adversary.within(lm) == [(back, layer) for back in range(n_tokens) for layer in range(lm.n_layers)]
    expected = {place: odds_without(bench, lm, adversary.differences[place]) for place in adversary.within(lm)}
    found = adversary.log_odds(lm, adversary.within(lm), TRIED)
    assert found == pytest.approx(expected, abs=1e-4)
    assert len(set(expected.values())) == len(expected)
    few = {place: odds_without(bench, lm, adversary.differences[place], FIRST_TRIED) for place in expected}
    best = sorted(few, key=few.get)[-4:]
    assert adversary.hard == sorted(best, key=expected.get)[-2:]
    assert drawn_places(adversary, lm) == set(adversary.hard)


def test_where_twice_the_hardest_are_all_directions_each_is_tried_on_every_prompt_and_once(bench, monkeypatch):
    tried = []
    counted = Adversary.log_odds
    monkeypatch.setattr(Adversary, "log_odds", lambda *args: tried.append(args[2:]) or counted(*args))
    adversary, lm = seeking(bench, hardest=2)
    assert len(adversary.within(lm)) <= 4
    assert tried == [(adversary.within(lm), TRIED)]


def test_where_no_refusal_begins_unlike_compliance_every_place_is_drawn(bench):
    """As for a run that starts from the untrained model: nothing tells its directions apart."""
    alike = {key: list(bench.references[key].answer_tokens) for key in bench.data.compliant}
    data = replace(bench.data, compliant=alike)
    training = {**SETTINGS["adversarial"], "edits": ["ablation"], "hardest": 2}
    adversary = Adversary(training, data)
    lm = add_random_lora(bench.load(), scale=0.05)
    adversary.fit(lm)
    assert adversary.log_odds(lm, adversary.within(lm), TRIED) == {}
    assert adversary.hard is None
    assert drawn_places(adversary, lm) == set(adversary.within(lm))


def test_without_hardest_every_place_is_drawn(bench):
    adversary, lm = seeking(bench, positions=2)
    assert drawn_places(adversary, lm) == set(adversary.within(lm))


def test_earlier_differences_are_those_of_shorter_prompts(bench):
    """The oracle: a whole pass over each prompt that ends there, one at a time."""
    adversary, lm = seeking(bench, positions=None, fit_prompts=100)
    ids = list(bench.data.references)
    labels = torch.tensor([key in bench.data.harmful for key in ids])
    for back in range(lm.n_after):
        values = []
        for key in ids:
            tokens = bench.references[key].prompt_tokens
            values.append(states_at_the_end(lm, tokens[: len(tokens) - back]))
        difference = torch.stack(values)[~labels].mean(0) - torch.stack(values)[labels].mean(0)
        torch.testing.assert_close(
            adversary.differences[back], torch.nn.functional.normalize(difference, dim=-1), atol=1e-4, rtol=1e-3
        )


def states_at_the_end(lm, tokens):
    """The residual stream [L, d] at the last of `tokens`, by a pass of its own."""
    end = Cursor(torch.tensor([0]), torch.tensor([len(tokens) - 1]))
    with torch.no_grad(), record_residual(lm, range(lm.n_layers)) as recorded, lm.looking_at(end):
        lm.decoder(input_ids=torch.tensor([tokens]), use_cache=False)
    return torch.stack([recorded[layer][0] for layer in range(lm.n_layers)])


def soft(bench, **changes):
    """A learner whose one edit is the soft prompt, its model, and a batch."""
    training = {**SETTINGS["adversarial"], "edits": ["soft_prompt"], **changes}
    learner = learner_of(bench, "adversarial", adversarial=training)
    lm = add_random_lora(bench.load(), scale=0.05)
    examples = drawn_examples(bench, learner, lm)[0]
    learner.begin(lm, 1, 6)
    return learner, lm, examples


def read_with(lm, vectors, n_after, prompt, answer):
    """Post-norm states [t, d] that predict an answer, one prompt at a time, the vectors given as inputs_embeds."""
    embed = lm.base.get_input_embeddings()
    tokens = embed(torch.tensor([*prompt, *answer[:-1]]))
    place = len(prompt) - n_after
    rows = torch.cat([tokens[:place], vectors, tokens[place:]])[None]
    return lm.decoder(inputs_embeds=rows, use_cache=False).last_hidden_state[0, -len(answer) :]


def test_a_soft_prompt_of_training_is_trained_on_compliance_and_read_after_the_prompt(bench):
    """The oracle: sign descent by autograd through plain inputs, on the prompts that the same numbers draw."""
    learner, lm, examples = soft(bench)
    n_after = len(lm.tokenizer(lm.chat_text("prompt").partition("prompt")[2], add_special_tokens=False).input_ids)
    with torch.no_grad():
        found = learner.adversary.attacked(lm, examples)
    table = lm.base.get_input_embeddings().weight
    rate, bound = 0.3 * table.abs().mean(), 4.0 * table.norm(dim=-1).mean()
    vectors = table[lm.tokenizer("!", add_special_tokens=False).input_ids * 2].detach()
    learner.begin(lm, 1, 6)
    learner.adversary.random.choice(["soft_prompt"])
    keys, losses = sorted(bench.data.compliant), []
    for _ in range(3):
        vectors.requires_grad_(True)
        likely = []
        for place in learner.adversary.random.choice(len(keys), size=2, replace=False):
            answer = bench.data.compliant[keys[place]]
            states = read_with(lm, vectors, n_after, bench.references[keys[place]].prompt_tokens, answer)
            likely.append(lm.logits(states).log_softmax(dim=-1)[torch.arange(len(answer)), answer])
        losses.append(-torch.cat(likely).mean())
        (gradient,) = torch.autograd.grad(losses[-1], vectors)
        vectors = vectors.detach() - rate * gradient.sign()
        vectors = vectors * (bound / vectors.norm(dim=-1, keepdim=True)).clamp(max=1.0)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        states = [read_with(lm, vectors, n_after, one.prompt_tokens, one.answer_tokens) for one in examples]
        plain = run_examples(lm, examples)
    torch.testing.assert_close(found.final, torch.cat(states), atol=1e-4, rtol=1e-3)
    assert (found.final - plain.final).abs().max() > 1e-2


def test_training_a_soft_prompt_leaves_the_models_own_gradient_alone(bench):
    """The oracle: the same loss under the same soft prompt, which was trained before the forward pass."""
    learner, lm, examples = soft(bench)
    parameters = list(trainable(lm.model).values())
    learner.adversary.random.choice(["soft_prompt"])
    known = learner.adversary.fit_soft_prompt(lm)
    gradients = []
    for attacker in (learner.adversary.fit_soft_prompt, lambda _: known):
        learner.begin(lm, 1, 6)
        learner.adversary.fit_soft_prompt = attacker
        lm.model.train()
        loss = learner.loss(lm, examples, learner.run(lm, examples))
        assert lm.model.training
        gradients.append(torch.autograd.grad(loss.total, parameters))
    assert sum(one.abs().sum() for one in gradients[0]) > 0
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_a_carried_soft_prompt_goes_on_until_the_attacker_is_fitted_again(bench):
    """The oracle: one training from nothing of as many steps as two draws take together."""
    terms = {**SETTINGS["adversarial"]["soft_prompt"], "carried": True}
    learner, lm, _ = soft(bench, soft_prompt=terms)
    first, second = (learner.adversary.fit_soft_prompt(lm) for _ in range(2))
    learner.begin(lm, 2, 6)
    afresh = learner.adversary.fit_soft_prompt(lm)
    learner, lm, _ = soft(bench, soft_prompt={**terms, "steps": 2 * terms["steps"]})
    assert torch.equal(learner.adversary.fit_soft_prompt(lm).vectors, second.vectors)
    learner, lm, _ = soft(bench)
    assert torch.equal(learner.adversary.fit_soft_prompt(lm).vectors, first.vectors)
    learner.begin(lm, 2, 6)
    assert torch.equal(learner.adversary.fit_soft_prompt(lm).vectors, afresh.vectors)
    assert not torch.equal(first.vectors, second.vectors)


def test_a_soft_prompt_in_training_needs_compliant_answers(bench):
    training = {**SETTINGS["adversarial"], "edits": ["push", "soft_prompt"]}
    with pytest.raises(UserError, match=r"adversarial.edits: .* soft_prompt out"):
        registry.method("adversarial")({**SETTINGS, "adversarial": training}, replace(bench.data, compliant={}))


def test_seeking_the_hardest_directions_needs_compliant_answers(bench):
    asking = {**SETTINGS["adversarial"], "hardest": 2}
    with pytest.raises(UserError, match=r"adversarial.hardest: .* null"):
        registry.method("adversarial")({**SETTINGS, "adversarial": asking}, replace(bench.data, compliant={}))


def test_the_attacker_of_training_is_fitted_on_the_model_as_it_is(bench):
    learner = learner_of(bench, "adversarial", adversarial={**SETTINGS["adversarial"], "fit_prompts": 100})
    lm = add_random_lora(bench.load(), scale=0.05)
    learner.begin(lm, 0, 6)
    ids = [key for key in bench.data.references if key in bench.data.harmful]
    ids += [key for key in bench.data.references if key not in bench.data.harmful]
    values = [states_at_the_end(lm, bench.references[key].prompt_tokens) for key in ids]
    labels = torch.tensor([key in bench.data.harmful for key in ids])
    values = torch.stack(values)
    expected = fit_probe_set(values, labels, values, labels, [0.01, 1.0], seed=0)
    torch.testing.assert_close(learner.adversary.probes.weight, expected.weight, atol=1e-3, rtol=1e-2)
    difference = values[~labels].mean(0) - values[labels].mean(0)
    torch.testing.assert_close(
        learner.adversary.differences[0], torch.nn.functional.normalize(difference, dim=-1), atol=1e-4, rtol=1e-3
    )
    before = learner.adversary.probes
    learner.begin(lm, 1, 6)
    assert learner.adversary.probes is before
    learner.begin(lm, 2, 6)
    assert learner.adversary.probes is not before
