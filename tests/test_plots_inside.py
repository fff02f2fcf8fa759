"""The figures of what is inside a model and of the work: separability, projection, training, cost."""

from pathlib import Path

import numpy as np
import pytest
import synthetic
from drawing import legend_texts, named_lines
from matplotlib.figure import Figure
from synthetic import Truth

from es2.plots.cost import cost_by_rule
from es2.plots.projection import Axes2D, fit_axes, load_clouds, projection_figure, read_layer
from es2.plots.training import training_figure


def test_separability_has_a_line_a_run_and_the_baselines(drawn: dict[str, Figure]) -> None:
    panels = drawn["separability"].axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        "probe AUROC", "d' along the probe", "centroid distance over spread", "norm of the embeddings",
    ]  # fmt: skip
    for panel in panels:
        assert named_lines(panel) == ["base", "refusal_sft", "hold", "es2"]
        assert len(panel.collections) == 4
    hidden = [str(line.get_label()) for line in panels[0].get_lines()]
    assert {"_auroc_bag_of_words", "_auroc_length"} <= set(hidden)
    assert [text.get_text() for text in panels[0].texts] == ["bag of words", "length alone"]
    assert panels[0].get_ylim()[0] < 0.61
    assert legend_texts(drawn["separability"]) == ["base", "refusal SFT", "hold", "ES2", "trained layers"]


def test_training_leaves_out_columns_without_numbers() -> None:
    truth = Truth()
    table = synthetic.training_table(truth)
    assert len(training_figure(table, truth.study()).axes) == 8
    only_sft = table[table["run"] == "refusal_sft"]
    shown = [p for p in training_figure(only_sft, truth.study()).axes if p.get_visible()]
    assert [p.get_title(loc="left") for p in shown] == [
        "loss", "KL, held-out safe prompts", "distance, in training", "norm, held-out prompts",
    ]  # fmt: skip
    assert named_lines(shown[0]) == ["refusal_sft"]


def test_axes_of_the_projection_are_the_class_difference_and_what_is_left() -> None:
    rng = np.random.default_rng(0)
    harmful, safe = rng.normal(0, 0.1, (50, 6)), rng.normal(0, 0.1, (50, 6))
    harmful[:, 0] += 4
    harmful[:, 2] += rng.normal(0, 2, 50)
    safe[:, 2] += rng.normal(0, 2, 50)
    axes = fit_axes(harmful, safe)
    assert np.allclose(axes.directions @ axes.directions.T, np.eye(2), atol=1e-9)
    difference = harmful.mean(axis=0) - safe.mean(axis=0)
    assert np.allclose(axes.directions[0], difference / np.linalg.norm(difference))
    assert abs(axes.directions[1, 2]) > 0.9
    xy = axes.project(np.stack([harmful.mean(axis=0), safe.mean(axis=0)]))
    assert np.allclose(xy[:, 0], [0.5, -0.5])
    both = np.concatenate([harmful, safe])
    assert axes.variance_explained(both).sum() == pytest.approx(1.0, abs=0.05)
    assert Axes2D(np.eye(2, 6), np.zeros(6), 2.0).project(np.full((1, 6), 4.0)).tolist() == [[2.0, 2.0]]


def test_projection_uses_test_prompts_and_the_same_limits(tmp_path: Path) -> None:
    truth = Truth()
    study, prompts, files = truth.study(), synthetic.prompts_table(truth.study()), {}
    for i, run in enumerate(truth.runs):
        path = tmp_path / f"{run}.safetensors"
        synthetic.write_embeddings(path, run, prompts, truth.factor[i])
        files[run] = path
    ids, values = read_layer(files["es2"], 2)
    assert values.shape == (len(ids), 12)
    axes, clouds = load_clouds(files, prompts, study, [1, 3])
    assert len(clouds) == 8
    assert {len(cloud.embeddings) for cloud in clouds} == {160}
    figure = projection_figure(axes, clouds, study)
    shown = [panel for panel in figure.axes if panel.get_visible()]
    assert len(shown) == 8
    assert len({panel.get_xlim() for panel in shown}) == len({panel.get_ylim() for panel in shown}) == 1
    assert [panel.get_title(loc="left") for panel in shown[:4]] == ["base", "refusal SFT", "hold", "ES2"]
    assert legend_texts(figure) == ["plain harmless", "look dangerous", "harmful"]
    assert all("%" in panel.texts[0].get_text() for panel in shown)


def test_cost_groups_the_small_rules() -> None:
    table = cost_by_rule(synthetic.cost_table())
    assert table.index[0] == "generate_answers"
    assert table.index[-1] == "4 others"
    assert table["minutes"].sum() == pytest.approx(synthetic.cost_table()["seconds"].sum() / 60)
