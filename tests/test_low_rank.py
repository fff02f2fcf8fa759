"""The fused LoRA layer equals peft's own: outputs, gradients, and every state in which peft does something else."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from training_bench import moved

from es2.low_rank import _Adapted, fuse
from es2.models import load_model as read_model
from es2.training import add_lora, save_adapter

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}


def adapted(lm, lora=LORA):
    """An adapter whose both halves are random, under peft's forward functions and under the fused ones."""
    add_lora(lm, lora, 0)
    return moved(lm)


def unfused(lm):
    """The same model with peft's own forward functions."""
    for module in lm.model.modules():
        vars(module).pop("forward", None)
    return lm


def run(lm) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of two sequences, and the gradient of a loss of them to every adapter weight."""
    lm.model.zero_grad()
    tokens = torch.tensor([[5, 9, 2, 7, 3], [4, 4, 8, 1, 6]])
    logits = lm.model(input_ids=tokens).logits
    logits.float().logsumexp(-1).pow(2).mean().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in lm.model.named_parameters() if p.grad is not None}


def calls(monkeypatch) -> list[int]:
    """Filled with one entry for each use of the fused product."""
    made: list[int] = []
    before = _Adapted.apply
    monkeypatch.setattr(_Adapted, "apply", lambda *given: made.append(1) or before(*given))
    return made


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma"])
def test_outputs_and_gradients_are_pefts(load_model, family, monkeypatch):
    lm = adapted(load_model(family))
    made = calls(monkeypatch)
    logits, gradients = run(lm)
    assert len(made) == 7 * lm.n_layers
    expected, by_peft = run(unfused(lm))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == by_peft.keys()
    assert len(gradients) == 14 * lm.n_layers
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, by_peft[name], rtol=1e-4, atol=1e-5 * by_peft[name].abs().max().item())


@pytest.mark.parametrize("biased", [False, True])
def test_the_gradient_is_that_of_differences(biased):
    torch.manual_seed(0)
    x, weight, down, up = (torch.randn(*size, dtype=torch.float64) for size in ((2, 3, 4), (5, 4), (2, 4), (5, 2)))
    bias = torch.randn(5, dtype=torch.float64) if biased else None
    for one in (x, down, up):
        one.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, down, up: _Adapted.apply(x, weight, bias, down, up, 1.7), (x, down, up))
    expected = nn.functional.linear(x, weight, bias) + 1.7 * (x @ down.T @ up.T)
    torch.testing.assert_close(_Adapted.apply(x, weight, bias, down, up, 1.7), expected)


def test_an_adapter_that_is_off_or_folded_in_adds_nothing_of_its_own(load_model, monkeypatch):
    lm = adapted(load_model())
    tokens = torch.tensor([[5, 9, 2, 7, 3]])
    with torch.no_grad():
        on = lm.model(input_ids=tokens).logits
        made = calls(monkeypatch)
        with lm.model.disable_adapter():
            off = lm.model(input_ids=tokens).logits
        lm.model.merge_adapter()
        folded = lm.model(input_ids=tokens).logits
        lm.model.unmerge_adapter()
        assert not made
        plain = load_model().model(input_ids=tokens).logits
    torch.testing.assert_close(off, plain)
    torch.testing.assert_close(folded, on, rtol=1e-4, atol=1e-4)
    assert (on - off).abs().max() > 1e-3


@pytest.mark.parametrize("case", ["dropout", "bfloat16"])
def test_what_is_not_the_same_product_is_left_to_peft(load_model, case, monkeypatch):
    dropout, dtype = (0.5, "float32") if case == "dropout" else (0.0, "bfloat16")
    lm = adapted(load_model(dtype=dtype), {**LORA, "dropout": dropout})
    made = calls(monkeypatch)
    lm.model.train()
    torch.manual_seed(2)
    logits, gradients = run(lm)
    torch.manual_seed(2)
    expected, by_peft = run(unfused(lm))
    assert not made
    assert torch.equal(logits, expected)
    assert all(torch.equal(gradients[name], by_peft[name]) for name in by_peft)


def test_a_model_without_an_adapter_is_left_as_it_is(load_model):
    model = load_model().model
    fuse(model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_an_adapter_that_is_trained_further_is_fused(load_model, tiny_folders, tmp_path, monkeypatch):
    """A child's training goes on with its parent's adapter, read from files."""
    parent = adapted(load_model())
    save_adapter(parent, tmp_path, "tiny")
    child = read_model(tiny_folders["llama"], tmp_path, merge=False, device="cpu")
    made = calls(monkeypatch)
    logits, gradients = run(child)
    assert len(made) == 7 * child.n_layers
    expected, by_parent = run(parent)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, by_parent[name], rtol=1e-4, atol=1e-6)


def test_a_copy_computes_with_its_own_adapter(load_model):
    lm = adapted(load_model())
    tokens = torch.tensor([[5, 9, 2, 7, 3]])
    copied = deepcopy(lm.model)
    with torch.no_grad():
        before = lm.model(input_ids=tokens).logits
        for name, weight in copied.named_parameters():
            if "lora_" in name:
                weight.zero_()
        assert torch.equal(lm.model(input_ids=tokens).logits, before)
        plain = load_model().model(input_ids=tokens).logits
        torch.testing.assert_close(copied(input_ids=tokens).logits, plain)
