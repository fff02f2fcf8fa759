"""es2.layer_metrics and es2.separability against scikit-learn and plain numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from es2.errors import UserError
from es2.layer_metrics import Weights, auroc, separability, tpr_at_fpr
from es2.probes import fit_probes
from es2.separability import Settings, measure, text_baselines

P0 = 1e-4
SETTINGS = Settings.of(
    {
        "c": [0.01, 1.0, 100.0], "metric_c": 1.0, "p0": P0, "bootstrap": 40,
        "harmful_sets": ["bad"], "safe_sets": ["plain"],
        "layers": {"count": 2, "window": [0.2, 1.0], "gap": 0.4},
    }
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Embeddings by prompt id."""

    rows: dict[str, Tensor]

    def of(self, prompt_ids: Sequence[str]) -> Tensor:
        return torch.stack([self.rows[prompt_id] for prompt_id in prompt_ids])


@dataclass(frozen=True)
class Case:
    """Test prompts, a probe fitted on others, and the base model's norms."""

    embeddings: Tensor
    harmful: Tensor
    weight: Tensor
    bias: Tensor
    base_norm: Tensor


@pytest.fixture(scope="module")
def case() -> Case:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(160, 3, 16, generator=generator) + 1.0
    harmful = torch.arange(160) % 5 < 2
    states += harmful[:, None, None] * torch.randn(3, 16, generator=generator) * 0.5
    weight, bias = fit_probes(states[:80], harmful[:80], [1.0])
    base_norm = states[80:].norm(dim=2) * 0.5 + 0.1
    return Case(states[80:], harmful[80:], weight[0], bias[0], base_norm)


@pytest.fixture(scope="module")
def figures(case: Case) -> pd.DataFrame:
    return separability(case.embeddings, case.harmful, case.weight, case.bias, case.base_norm, P0, 200, seed=1)


def naive(states: np.ndarray, harmful: np.ndarray, w: np.ndarray, b: float, base_norm: np.ndarray) -> dict[str, float]:
    """Every metric of one layer, word for word from its definition."""
    logit, norm = states @ w + b, np.linalg.norm(states, axis=1)
    H, S = states[harmful], states[~harmful]

    def balanced(values: np.ndarray) -> float:
        return (values[harmful].mean() + values[~harmful].mean()) / 2

    own_side = np.where(harmful, 1, -1) * logit / np.linalg.norm(w)
    gap = np.linalg.norm(H.mean(axis=0) - S.mean(axis=0))
    spread = np.sqrt((H.var(axis=0, ddof=1).sum() + S.var(axis=0, ddof=1).sum()) / 2)
    pooled = np.sqrt(((H @ w).var(ddof=1) + (S @ w).var(ddof=1)) / 2)
    p = 1 / (1 + np.exp(-logit))
    step = np.where(p > P0, (logit - np.log(P0 / (1 - P0))) / np.linalg.norm(w), 0.0)
    fpr, tpr, _ = roc_curve(harmful, logit, drop_intermediate=False)
    return {
        "accuracy": ((p > 0.5) == harmful).mean(),
        "auroc": roc_auc_score(harmful, logit),
        "tpr_at_1_fpr": tpr[fpr <= 0.01].max(),
        "margin": balanced(own_side) / balanced(norm),
        "d_prime": ((H @ w).mean() - (S @ w).mean()) / pooled,
        "centroid_distance": gap,
        "centroid_over_norm": gap / balanced(norm),
        "centroid_over_spread": gap / spread,
        "scav_step": step[harmful].mean(),
        "scav_step_relative": (step / norm)[harmful].mean(),
        "norm_ratio_to_base": balanced(norm) / balanced(base_norm),
    }


def test_every_metric_is_what_its_definition_says(case: Case, figures: pd.DataFrame) -> None:
    for layer in range(3):
        expected = naive(
            case.embeddings[:, layer].double().numpy(), case.harmful.numpy(),
            case.weight[layer].double().numpy(), float(case.bias[layer]),
            case.base_norm[:, layer].double().numpy(),
        )  # fmt: skip
        ours = figures[figures["layer"] == layer].set_index("metric")["value"].to_dict()
        assert ours == pytest.approx(expected, rel=1e-5)


def test_a_resample_is_the_metric_of_the_prompts_drawn(case: Case) -> None:
    """Weights of whole numbers must give the figures of a data set with so many copies of each prompt."""
    states, harmful = case.embeddings[:, 1].double().numpy(), case.harmful.numpy()
    w, b = case.weight[1].double().numpy(), float(case.bias[1])
    weights = Weights.draw(range(int(harmful.sum())), range(int((~harmful).sum())), 6, seed=5)
    logit = states @ w + b
    for row in range(7):
        copies = np.zeros(len(harmful), dtype=int)
        copies[harmful], copies[~harmful] = weights.harmful[row], weights.safe[row]
        drawn = np.repeat(np.arange(len(harmful)), copies)
        fpr, tpr, _ = roc_curve(harmful[drawn], logit[drawn], drop_intermediate=False)
        area = auroc(logit[harmful], logit[~harmful], weights)[row]
        assert area == pytest.approx(roc_auc_score(harmful[drawn], logit[drawn]))
        rate = tpr_at_fpr(logit[harmful], logit[~harmful], weights)[row]
        assert rate == pytest.approx(tpr[fpr <= 0.01].max())


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=30),
    st.lists(st.integers(-3, 3), min_size=2, max_size=30),
    st.sampled_from([0.0, 0.01, 0.1, 0.5]),
)
@settings(max_examples=80, deadline=None)
def test_scores_with_ties_rank_as_scikit_learn_ranks_them(above: list[int], below: list[int], fpr: float) -> None:
    harmful, safe = np.array(above, dtype=float), np.array(below, dtype=float)
    truth, scores = np.repeat([1, 0], [len(above), len(below)]), np.concatenate([harmful, safe])
    alone = Weights.draw(range(len(above)), range(len(below)), 0, seed=0)
    assert auroc(harmful, safe, alone)[0] == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert tpr_at_fpr(harmful, safe, alone, fpr)[0] == pytest.approx(true[false <= fpr + 1e-9].max())


def test_intervals_hold_the_figures_and_repeat(case: Case, figures: pd.DataFrame) -> None:
    assert (figures["low"] <= figures["value"] + 1e-9).all()
    assert (figures["value"] <= figures["high"] + 1e-9).all()
    again = separability(case.embeddings, case.harmful, case.weight, case.bias, case.base_norm, P0, 200, seed=1)
    pd.testing.assert_frame_equal(figures, again)


def test_near_twins_are_drawn_together(case: Case, figures: pd.DataFrame) -> None:
    """The oracle: with each prompt there twice, in one cluster, what is drawn is as uncertain as without the copies."""
    twice = [torch.cat([part, part]) for part in (case.embeddings, case.harmful, case.base_norm)]
    n = len(case.harmful)

    def measured(clusters: list[int] | None) -> pd.DataFrame:
        states, harmful, norm = twice
        return separability(states, harmful, case.weight, case.bias, norm, P0, 200, 1, clusters).set_index("metric")

    known, twins, apart = figures.set_index("metric"), measured([*range(n)] * 2), measured(None)
    for metric in ("accuracy", "auroc", "tpr_at_1_fpr", "margin", "scav_step", "norm_ratio_to_base"):
        for end in ("value", "low", "high"):
            assert twins.loc[metric, end].tolist() == pytest.approx(known.loc[metric, end].tolist(), rel=1e-6), metric
    # Variances divide by n - 1, which the copies change a little.
    distance = "centroid_distance"
    assert twins.loc[distance, "low"].tolist() == pytest.approx(known.loc[distance, "low"].tolist(), rel=0.02)
    width = {name: (table["high"] - table["low"]).loc["auroc"].mean() for name, table in (("t", twins), ("a", apart))}
    assert width["a"] < 0.9 * width["t"]


def test_the_interval_of_a_small_distance_holds_it() -> None:
    """Where all is noise in many dimensions, a plain bootstrap of |mu_H - mu_S| lies above the distance."""
    states = torch.randn(100, 1, 400, generator=torch.Generator().manual_seed(2))
    harmful = torch.arange(100) < 50
    ones = torch.ones(1, 400)
    table = separability(states, harmful, ones, torch.zeros(1), states.norm(dim=2), P0, 300)
    row = table.set_index("metric").loc["centroid_distance"]
    assert row["low"] < row["value"] < row["high"]


def test_a_bootstrap_interval_is_about_the_normal_one(case: Case, figures: pd.DataFrame) -> None:
    harmful = case.harmful.numpy()
    logit = (case.embeddings[:, 0] @ case.weight[0] + case.bias[0]).double().numpy()
    step = (logit[harmful] - np.log(P0 / (1 - P0))) / float(case.weight[0].norm())
    half = 1.96 * step.std(ddof=1) / len(step) ** 0.5
    row = figures[(figures["layer"] == 0) & (figures["metric"] == "scav_step")].iloc[0]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.2)


def test_text_baselines_are_fitted_on_the_first_texts() -> None:
    fit = ["steal a car", "steal this"] * 5 + ["please bake the good cake", "bake a very large bread"] * 5
    labels = torch.tensor([True] * 10 + [False] * 10)
    texts = ["steal that bike", "steal", "bake cake", "bake a good loaf of bread"]
    table = text_baselines(fit, labels, texts, torch.tensor([True, True, False, False]), 20)
    values = table.set_index("metric")["value"]
    assert (table["layer"] == -1).all()
    assert values["auroc_bag_of_words"] == 1.0
    assert values["auroc_length"] == 0.75  # harmful ones are the shorter: the sign comes from the fit texts


def study(seed: int = 0) -> tuple[Table, Table, pd.DataFrame]:
    """Three splits of two sets, and a set that nobody asked for, with embeddings of five layers."""
    generator = torch.Generator().manual_seed(seed)
    rows, states = [], {}
    sizes = {"attack": 30, "validation": 20, "test": 25}
    for split, size in sizes.items():
        for name in ("bad", "plain", "look_dangerous"):
            for i in range(size):
                key = f"{name}-{split}-{i}"
                text = f"{'break' if name == 'bad' else 'make'} thing {i}"
                about = {"prompt_id": key, "prompt": text, "set": name, "label": "", "split": split}
                rows.append(about | {"cluster": len(rows)})
                shift = (name == "bad") * torch.tensor([0.2, 1.0, 3.0, 2.0, 0.5])[:, None]
                states[key] = torch.randn(5, 12, generator=generator) + shift
    run = Table({key: 2 * value for key, value in states.items()})
    return run, Table(states), pd.DataFrame(rows)


def test_measure_fits_chooses_and_reports() -> None:
    run, base, prompts = study()
    measured = measure(run, base, prompts, SETTINGS, seed=0)
    assert measured.probes.weight.shape == (3, 5, 12)
    assert measured.layers == [2, 4]
    assert len(measured.validation_d_prime) == 5
    table = measured.table
    assert list(table.columns) == ["layer", "metric", "value", "low", "high", "split"]
    assert set(table.loc[table["split"] == "validation", "metric"]) == {"d_prime", "accuracy"}
    assert set(table.loc[table["layer"] == -1, "metric"]) == {"auroc_length", "auroc_bag_of_words"}
    assert table.loc[table["metric"] == "norm_ratio_to_base", "value"].tolist() == pytest.approx([2.0] * 5)
    on_test = table[(table["metric"] == "accuracy") & (table["split"] == "validation")]["value"]
    assert on_test.tolist() == pytest.approx(measured.probes.accuracy[1].tolist())
    again = measure(run, base, prompts, SETTINGS, seed=0)
    pd.testing.assert_frame_equal(table, again.table)


def test_an_empty_class_is_one_sentence() -> None:
    run, base, prompts = study()
    with pytest.raises(UserError, match=r"0 harmful prompts in split validation of \['bad'\]"):
        measure(
            run,
            base,
            prompts[(prompts["set"] != "bad") | (prompts["split"] != "validation")],
            SETTINGS,
            seed=0,
        )
