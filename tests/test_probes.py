"""es2.probes against scikit-learn, and the choice of layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from es2.errors import UserError
from es2.probes import ProbeSet, fit_probe_set, fit_probes

C = (0.01, 1.0, 100.0)


def prompts(n: int, n_layers: int, d: int, shift: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two Gaussian classes [n, L, d], `shift` apart, each layer of its own scale, far off the origin."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3 == 0
    noise = torch.randn(n, n_layers, d, generator=generator)
    direction = torch.randn(n_layers, d, generator=generator) / d**0.5
    scale = 10.0 ** torch.arange(n_layers)[:, None]
    return ((noise + 2.0 + shift * labels[:, None, None] * direction) * scale), labels


def oracle(rows: np.ndarray, labels: np.ndarray, c: float) -> np.ndarray:
    """scikit-learn's probabilities on features divided by their rms entry."""
    scaled = rows.astype(np.float64) / np.sqrt((rows.astype(np.float64) ** 2).mean())
    model = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    return model.fit(scaled, labels).predict_proba(scaled)[:, 1]


@pytest.mark.parametrize(("n", "d", "shift"), [(40, 96, 0.0), (40, 96, 8.0), (150, 12, 1.0), (30, 30, 2.0)])
def test_probabilities_are_those_of_scikit_learn(n: int, d: int, shift: float) -> None:
    embeddings, labels = prompts(n, 2, d, shift)
    weight, bias = fit_probes(embeddings, labels, C)
    ours = torch.sigmoid(torch.einsum("cld,nld->cnl", weight, embeddings) + bias[:, None]).numpy()
    for i, c in enumerate(C):
        for layer in range(2):
            expected = oracle(embeddings[:, layer].numpy(), labels.numpy(), c)
            np.testing.assert_allclose(ours[i, :, layer], expected, atol=5e-5)


def test_separable_prompts_with_a_weak_penalty_converge() -> None:
    embeddings, labels = prompts(60, 3, 200, 30.0)
    weight, bias = fit_probes(embeddings, labels, [100.0, 1e4])
    logit = torch.einsum("cld,nld->cnl", weight, embeddings) + bias[:, None]
    assert torch.isfinite(logit).all()
    assert ((logit > 0) == labels[None, :, None]).all()


def test_the_order_of_c_is_the_callers() -> None:
    embeddings, labels = prompts(20, 1, 8, 1.0)
    up, down = fit_probes(embeddings, labels, [0.01, 1.0]), fit_probes(embeddings, labels, [1.0, 0.01])
    torch.testing.assert_close(up[0], down[0].flip(0))


def test_a_fit_that_cannot_be_is_one_sentence() -> None:
    embeddings, labels = prompts(12, 1, 4, 1.0)
    with pytest.raises(UserError, match="one class"):
        fit_probes(embeddings, torch.ones(12, dtype=torch.bool), C)
    with pytest.raises(UserError, match="above 0"):
        fit_probes(embeddings, labels, [0.0])
    embeddings[3, 0, 2] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        fit_probes(embeddings, labels, C)


def test_probe_set_holds_what_it_says_and_survives_a_file(tmp_path: Path) -> None:
    fit, fit_labels = prompts(60, 2, 24, 4.0)
    val, val_labels = fit[:21], fit_labels[:21]
    probes = fit_probe_set(fit[21:], fit_labels[21:], val, val_labels, [1.0, 0.01], seed=3)
    assert probes.c == (0.01, 1.0)
    expected = ((probes.logit(val) > 0) == val_labels[None, :, None]).float().mean(dim=1)
    torch.testing.assert_close(probes.accuracy, expected)
    attack, labels = fit[21:], fit_labels[21:]
    torch.testing.assert_close(
        probes.mu_harmful[1, 0], (attack[labels][:, 0] @ probes.weight[1, 0]).mean(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        probes.mu_safe[0, 1], (attack[~labels][:, 1] @ probes.weight[0, 1]).mean(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(probes.norm, attack.norm(dim=2).mean(dim=0))
    probes.save(tmp_path / "probes.safetensors")
    again = ProbeSet.load(tmp_path / "probes.safetensors")
    assert again.c == probes.c
    torch.testing.assert_close(again.shuffled_weight, probes.shuffled_weight, rtol=0, atol=0)
    torch.testing.assert_close(again.logit(val), probes.logit(val), rtol=0, atol=0)
    with pytest.raises(UserError, match="C = 7"):
        probes.index(7.0)


def test_the_shuffled_control_knows_nothing() -> None:
    embeddings, labels = prompts(400, 1, 20, 6.0)
    fit, rest = slice(0, 200), slice(200, None)
    probes = fit_probe_set(embeddings[fit], labels[fit], embeddings[rest], labels[rest], [1.0], seed=0)
    balanced = torch.einsum("cld,nld->cnl", probes.shuffled_weight, embeddings[rest])[0, :, 0]
    difference = balanced[labels[rest]].mean() - balanced[~labels[rest]].mean()
    true = probes.logit(embeddings[rest])[0, :, 0]
    assert probes.accuracy[0, 0] > 0.9
    assert difference.abs() < 0.2 * (true[labels[rest]].mean() - true[~labels[rest]].mean())
