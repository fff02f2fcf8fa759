"""Losses against naive forms, and the KL from cached states against two models side by side (method.md section 4)."""

import math

import pytest
import torch
from conftest import FAMILIES, PROMPTS
from oracles import add_random_lora

from es2.drift import measure_drift
from es2.embeddings import extract_tokens
from es2.examples import run_examples
from es2.losses import through_head
from es2.losses.divergence import kl_divergence, relative_drift
from es2.losses.separation import DISTANCES, FORMS
from es2.losses.through_head import kl_through_head
from es2.reference import record
from es2.training import HeldOut, watch


def references_of(lm, n=4):
    return record(lm, {str(place): text for place, text in enumerate(PROMPTS[:n])}, lambda *_: "compliance", 5)


def logits_along(lm, reference):
    """Plain transformers: logits at the positions that predict the answer's tokens."""
    ids = torch.tensor([[*reference.prompt_tokens, *reference.answer_tokens]])
    with torch.no_grad():
        return lm.model(input_ids=ids).logits[0, len(reference.prompt_tokens) - 1 : -1]


def kl_double(lm, states, parent):
    """KL at each row [t] between the logits of two models' final states, by a model in double precision."""
    p, q = (torch.log_softmax(lm.logits(each.double()), dim=-1) for each in (states, parent))
    return (p.exp() * (p - q)).sum(dim=-1)


def two_model_kl(child, parent, reference):
    p, q = (torch.log_softmax(logits_along(lm, reference).double(), dim=-1) for lm in (child, parent))
    return (p.exp() * (p - q)).sum(dim=-1)


@pytest.mark.parametrize("piece", [7, 64, 1000])
@pytest.mark.parametrize("family", FAMILIES)
def test_kl_in_pieces_of_the_vocabulary_is_the_naive_one(load_model, family, piece, monkeypatch):
    """Value and gradient against double precision, at small and large logits, with an uneven last piece."""
    monkeypatch.setattr(through_head, "PIECE", {"cpu": piece})
    lm, exact = load_model(family), load_model(family)
    lm.base.requires_grad_(False)
    exact.model.double()
    torch.manual_seed(0)
    for size, apart in ((1.0, 0.01), (1.0, 1.0), (60.0, 60.0)):
        parent = size * torch.randn(9, lm.width)
        states = (parent + apart * torch.randn_like(parent)).requires_grad_(True)
        weights = torch.rand(9)
        found = kl_through_head(lm, states, parent)
        (gradient,) = torch.autograd.grad((weights * found).sum(), states)
        expected = kl_double(exact, states, parent.double())
        (naive,) = torch.autograd.grad((weights * expected).sum(), states)
        assert expected.mean() > 1e-6
        torch.testing.assert_close(found.double(), expected, atol=1e-5 * size, rtol=1e-4)
        torch.testing.assert_close(gradient, naive, atol=3e-6 + 1e-4 * naive.abs().max().item(), rtol=1e-4)
        with torch.no_grad():
            assert torch.equal(kl_through_head(lm, states, parent), found)


@pytest.mark.parametrize("settings", [{"final_logit_softcapping": 2.0}, {"logit_scale": 0.3}, {"logits_scaling": 3.0}])
def test_kl_through_a_head_that_scales_or_caps(load_model, settings):
    lm = load_model()
    lm.base.requires_grad_(False)
    for name, value in settings.items():
        setattr(lm.base.config, name, value)
    torch.manual_seed(0)
    parent, states = torch.randn(2, 9, lm.width)
    states.requires_grad_(True)
    found, expected = kl_through_head(lm, states, parent), kl_divergence(lm.logits(states), lm.logits(parent))
    plain = lm.base.get_output_embeddings()(states)
    assert (lm.logits(states) - plain).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(kl.sum(), states)[0] for kl in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-3)


def test_kl_through_the_head_keeps_two_tensors_of_the_vocabulary(load_model):
    """Of the naive way's tensors [tokens, |V|] two are kept for the backward pass, and without gradients none."""
    lm = load_model()
    lm.base.requires_grad_(False)
    states = torch.randn(40, lm.width)

    def kept(loss, states):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: sizes.append(one.numel()) or one, lambda one: one):
            loss(states)
        return sum(size for size in sizes if size >= 40 * 32) / (40 * lm.n_tokens)

    def ours(states):
        return kl_through_head(lm, states, states.detach())

    def naive(states):
        return kl_divergence(lm.logits(states), lm.logits(states.detach()))

    weight = lm.width / 40
    assert kept(ours, states.clone().requires_grad_(True)) == pytest.approx(2 + weight, abs=0.1)
    assert kept(naive, states.clone().requires_grad_(True)) > 3
    assert kept(ours, states) < 0.1 + weight


@pytest.mark.parametrize("family", FAMILIES)
def test_kl_of_cached_states_is_the_kl_of_two_models(load_model, family):
    parent, child = load_model(family), add_random_lora(load_model(family), scale=0.05)
    references = references_of(parent)
    with torch.no_grad():
        outputs = run_examples(child, [one.example() for one in references])
        states = torch.cat([one.states for one in references])
        kl = kl_divergence(child.logits(outputs.final), child.logits(states))
    expected = torch.cat([two_model_kl(child, parent, one) for one in references])
    assert expected.mean() > 1e-3
    assert kl.min() >= 0
    torch.testing.assert_close(kl.double(), expected, atol=1e-5, rtol=1e-4)


def test_watch_is_the_mean_over_answer_tokens_and_the_norm_ratio_furthest_from_one(load_model):
    parent, child = load_model(), add_random_lora(load_model(), scale=0.05)
    references = references_of(parent, 6)
    embeddings = extract_tokens(parent, [one.prompt_tokens for one in references])
    found = watch(child, HeldOut(references, embeddings))
    expected = torch.cat([two_model_kl(child, parent, one) for one in references]).mean().item()
    assert found["kl_heldout"] == pytest.approx(expected, rel=1e-3)
    own = extract_tokens(child, [one.prompt_tokens for one in references])
    ratios = [own[:, k].norm(dim=1).mean() / embeddings[:, k].norm(dim=1).mean() for k in range(4)]
    assert found["norm_ratio"] == pytest.approx(max(ratios, key=lambda one: abs(one.log())).item(), rel=1e-5)
    larger = embeddings * torch.tensor([1.0, 10.0, 0.9, 1.0])[:, None]  # layer 1 has shrunk, layer 2 grown a little
    assert watch(child, HeldOut(references, larger))["norm_ratio"] == pytest.approx(ratios[1].item() / 10, rel=1e-5)


def test_kl_is_zero_at_the_start_of_lora(load_model):
    from es2.training import add_lora

    lm = load_model()
    references = references_of(lm)
    add_lora(lm, {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}, seed=0)
    found = watch(lm, HeldOut(references, extract_tokens(lm, [one.prompt_tokens for one in references])))
    assert abs(found["kl_heldout"]) < 1e-6
    assert found["norm_ratio"] == pytest.approx(1.0, abs=1e-5)


def test_kl_is_never_negative_and_directed():
    torch.manual_seed(0)
    p, q = torch.randn(50, 30) * 3, torch.randn(50, 30) * 3
    assert kl_divergence(p, q).min() > 0
    assert kl_divergence(p, p).abs().max() < 1e-6
    assert (kl_divergence(p, q) - kl_divergence(q, p)).abs().max() > 0.1
    two = kl_divergence(torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[0.25, 0.75]])))
    assert two.item() == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), abs=1e-6)


def test_drift_table_against_plain_transformers(load_model):
    parent, child = load_model("qwen2"), add_random_lora(load_model("qwen2"), scale=0.05)
    references = references_of(parent)
    rows = measure_drift(child, {"base": references, "parent": references[:1]}, batch_rows=3)
    table = {(row["task"], row["prompt_id"]): row["value"] for row in rows}
    assert len(rows) == len(table) == 4 * 5 + 3
    for one in references:
        kl, logits = two_model_kl(child, parent, one), logits_along(child, one)
        assert table["kl_to_base", one.prompt_id] == pytest.approx(kl.mean().item(), rel=1e-3)
        assert table["first_token_kl_to_base", one.prompt_id] == pytest.approx(kl[0].item(), rel=1e-3, abs=1e-5)
        agrees = (logits.argmax(-1) == torch.tensor(one.answer_tokens)).float().mean().item()
        assert table["agreement_with_base", one.prompt_id] == pytest.approx(agrees)
        ids = torch.tensor([[*one.prompt_tokens, *one.answer_tokens]])
        labels = ids.clone()
        labels[0, : len(one.prompt_tokens)] = -100
        with torch.no_grad():
            nats = child.model(input_ids=ids, labels=labels).loss.item()
        assert table["perplexity", one.prompt_id] == pytest.approx(math.exp(nats), rel=1e-3)
        n_bytes = len(child.tokenizer.decode(one.answer_tokens, skip_special_tokens=True).encode())
        bits = nats * len(one.answer_tokens) / math.log(2) / n_bytes
        assert table["bits_per_byte", one.prompt_id] == pytest.approx(bits, rel=1e-3)
    assert table["kl_to_parent", "0"] == pytest.approx(table["kl_to_base", "0"], rel=1e-4)


def test_a_model_agrees_with_its_own_answers(load_model):
    lm = load_model()
    values = {row["task"]: row["value"] for row in measure_drift(lm, {"base": references_of(lm, 1)})}
    assert values["agreement_with_base"] == 1.0
    assert abs(values["kl_to_base"]) < 1e-6


def test_relative_drift():
    parent = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    moved = parent + torch.tensor([[0.0, 5.0], [1.0, 0.0]])
    assert relative_drift(moved, parent).item() == pytest.approx((5 / 5 + 1 / 2) / 2)
    states = parent.clone().requires_grad_()
    relative_drift(states, parent).backward()
    assert torch.equal(states.grad, torch.zeros(2, 2))


def two_sets():
    torch.manual_seed(0)
    return torch.randn(3, 5, 8) + 1, torch.randn(3, 4, 8)


def test_pairwise_distance_is_the_naive_loop():
    harmful, safe = two_sets()
    for k in range(3):
        pairs = [(h - s).norm().item() for h in harmful[k] for s in safe[k]]
        assert DISTANCES["pairwise"](harmful, safe)[k].item() == pytest.approx(sum(pairs) / 20, rel=1e-6)


def test_pairwise_distance_of_close_states_of_large_norm_is_exact():
    base = torch.full((1, 1, 64), 100.0)
    assert DISTANCES["pairwise"](base, base + 1e-3).item() == pytest.approx(8e-3, rel=1e-2)


def test_centroid_distance():
    harmful, safe = two_sets()
    for k in range(3):
        expected = sum((harmful[k, :, j].mean() - safe[k, :, j].mean()).item() ** 2 for j in range(8)) ** 0.5
        assert DISTANCES["centroid"](harmful, safe)[k].item() == pytest.approx(expected, rel=1e-5)


def test_forms():
    distance, parent = torch.tensor([2.0, 9.0]), torch.tensor([1.0, 3.0])
    assert FORMS["plain"](distance, parent, 4.0).item() == pytest.approx(-5.5)
    assert FORMS["scale_free"](distance, parent, 4.0).item() == pytest.approx(-2.5)
    assert FORMS["bounded"](distance, parent, 4.0).item() == pytest.approx((2 + 1) / 2)
    assert FORMS["bounded"](distance, parent, 2.5).item() == pytest.approx(0.25)


@pytest.mark.parametrize("name", DISTANCES)
def test_bounded_gradient_is_zero_beyond_the_target_and_not_before(name):
    harmful, safe = two_sets()
    harmful.requires_grad_()
    distance = DISTANCES[name](harmful, safe)
    parent = distance.detach() / torch.tensor([3.0, 1.0, 3.0])
    FORMS["bounded"](distance, parent, 2.0).backward()
    assert torch.equal(harmful.grad[[0, 2]], torch.zeros(2, 5, 8))
    assert harmful.grad[1].abs().max() > 0


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("form", ["scale_free", "bounded"])
def test_ratio_forms_do_not_see_the_models_scale_and_the_plain_one_does(name, form):
    harmful, safe = two_sets()
    parent = DISTANCES[name](safe[:, :2], safe[:, 2:])
    distance = DISTANCES[name](harmful, safe)
    scaled = DISTANCES[name](7 * harmful, 7 * safe)
    assert FORMS[form](scaled, 7 * parent, 4.0).item() == pytest.approx(
        FORMS[form](distance, parent, 4.0).item(), rel=1e-5
    )
    plain = FORMS["plain"](distance, parent, 4.0).item()
    assert FORMS["plain"](scaled, 7 * parent, 4.0).item() == pytest.approx(7 * plain, rel=1e-5)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_pushes_apart(name, form):
    harmful, safe = two_sets()
    harmful.requires_grad_()
    before = DISTANCES[name](harmful, safe)
    FORMS[form](before, before.detach(), 3.0).backward()
    after = DISTANCES[name](harmful.detach() - 0.1 * harmful.grad, safe)
    assert (after > before).all()
