"""The figures show what the tables hold: lines, labels, limits, what was not reached, equal bytes."""

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import Truth

from es2.plots.balance import balance_figure, balance_points
from es2.plots.cost import cost_by_rule, cost_figure
from es2.plots.dose_response import dose_points, dose_response_figure
from es2.plots.dsr import dot_rows, dsr_figure
from es2.plots.projection import Axes2D, fit_axes, load_clouds, projection_figure, read_layer
from es2.plots.robustness import robustness_figure
from es2.plots.separability import separability_figure
from es2.plots.style import FONT_PT, READING_WIDTH_CM, WIDTH_CM, legend_columns, run_styles, save
from es2.plots.tradeoff import BUDGET, DSR, tradeoff_figure, tradeoff_points
from es2.plots.training import training_figure
from es2.reporting import curve, read_table, rows, trained_layers

NEVER = Truth(half=(0.004, 0.018, 0.0185, 0.3))
ALONE = Truth(runs=("base",), direct=(0.06,), half=(0.004,), factor=(0.9,), plain=(0.0,), look=(0.02,), kl=(0.9,))
SWEEP = Truth(
    runs=("base", "refusal_sft", "hold", "es2_target_1.5", "es2_target_2.5", "es2", "es2_latent"),
    direct=(0.06, 0.9, 0.9, 0.9, 0.91, 0.92, 0.93),
    half=(0.004, 0.018, 0.0185, 0.02, 0.026, 0.032, 0.2),
    factor=(0.9, 1.0, 1.02, 1.2, 1.6, 2.1, 2.0),
    plain=(0.0, 0.08, 0.08, 0.09, 0.09, 0.12, 0.3),
    look=(0.02, 0.2, 0.2, 0.2, 0.22, 0.25, 0.4),
    kl=(0.9, 0.4, 0.0006, 0.002, 0.01, 0.02, 0.05),
    seeds=(0, 1),
)


def figures(truth: Truth) -> dict[str, Figure]:
    """Every figure made from tables, of one synthetic study."""
    t, study = synthetic.all_tables(truth), truth.study()
    points = dose_points(t.separability, t.robustness, t.dsr, study, [12, 18])
    return {
        "separability": separability_figure(t.separability, study, [12, 18]),
        "robustness": robustness_figure(t.dsr, t.robustness, study),
        "dsr": dsr_figure(t.dsr, t.robustness, study),
        "training": training_figure(synthetic.training_table(truth), study),
        "dose_response": dose_response_figure(points, study),
        "balance": balance_figure(t.dsr, study),
        "tradeoff": tradeoff_figure(t.dsr, t.robustness, t.ability, study),
        "cost": cost_figure(synthetic.cost_table()),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return figures(Truth())


def named_lines(panel: Axes) -> list[str]:
    return [str(line.get_label()) for line in panel.get_lines() if not str(line.get_label()).startswith("_")]


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def every_text(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in drawn_texts(figure))


def test_text_is_eight_points_at_reading_width() -> None:
    assert pytest.approx(8.0) == FONT_PT * READING_WIDTH_CM / WIDTH_CM


def drawn_texts(figure: Figure) -> list[Text]:
    """The texts that a reader sees: titles, labels, notes, legends, and the tick labels within the limits."""
    texts = [text for legend in figure.legends for text in legend.get_texts()] + list(figure.texts)
    for panel in (panel for panel in figure.axes if panel.get_visible()):
        titles = [panel.title, panel._left_title, panel._right_title, panel.xaxis.label, panel.yaxis.label]
        texts += [*titles, *panel.texts]
        for axis, limits in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
            ticks = [tick for tick in axis.get_major_ticks() if min(limits) <= tick.get_loc() <= max(limits)]
            texts += [tick.label1 for tick in ticks if tick.label1.get_visible()]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("truth", [Truth(), ALONE, SWEEP], ids=["usual", "base only", "sweep"])
def test_every_text_is_whole_large_enough_and_clear_of_others(truth: Truth) -> None:
    for name, figure in figures(truth).items():
        figure.draw_without_rendering()
        boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
        assert all(text.get_fontsize() >= FONT_PT - 0.01 for text in drawn_texts(figure)), name
        for words, box in boxes:
            assert min(box.x0, box.y0) >= -1, (name, words)
            assert max(box.x1 - figure.bbox.x1, box.y1 - figure.bbox.y1) <= 1, (name, words)
        for (first, a), (second, b) in itertools.combinations(boxes, 2):
            overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(overlap) < 2, (name, first, second)


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    t, study = synthetic.all_tables(Truth()), Truth().study()
    for attempt in ("a", "b"):
        save(robustness_figure(t.dsr, t.robustness, study), tmp_path / f"{attempt}.svg", tmp_path / f"{attempt}.png")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_run_keeps_its_colour_whatever_is_shown() -> None:
    four, three = Truth().study(), dataclasses.replace(Truth().study(), runs=("refusal_sft", "hold", "es2"))
    assert {run: run_styles(four)[run] for run in three.runs} == {run: run_styles(three)[run] for run in three.runs}
    assert len({style.color for style in run_styles(SWEEP.study()).values()}) == len(SWEEP.runs)


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


def test_robustness_begins_at_the_direct_request_and_marks_the_half(drawn: dict[str, Figure]) -> None:
    refusal, compliance, degenerate = drawn["robustness"].axes
    assert [p.get_title(loc="left") for p in (refusal, compliance, degenerate)] == [
        "refusal", "compliance", "degenerate",
    ]  # fmt: skip
    assert named_lines(refusal) == ["refusal_sft", "hold", "es2"]
    line = next(line for line in refusal.get_lines() if line.get_label() == "es2")
    assert line.get_xdata()[0] == 0
    assert line.get_ydata()[0] == pytest.approx(0.9, abs=0.01)
    marks = [c for c in compliance.containers if str(c.get_label()).startswith("_half_")]
    assert [c.lines[0].get_xdata()[0] for c in marks] == pytest.approx([0.018, 0.0185, 0.032])
    assert refusal.get_xlim()[0] == 0
    assert "RMS of |step| / |e|" in every_text(drawn["robustness"])


def test_a_run_that_never_falls_is_named_in_the_legend() -> None:
    t = synthetic.all_tables(NEVER)
    figure = robustness_figure(t.dsr, t.robustness, NEVER.study())
    assert legend_texts(figure) == ["refusal SFT", "hold", "ES2 (never half)"]
    marks = [str(c.get_label()) for c in figure.axes[1].containers if str(c.get_label()).startswith("_half_")]
    assert marks == ["_half_refusal_sft", "_half_hold"]


def test_shares_of_the_curve_add_up_to_one() -> None:
    truth = Truth()
    points = curve(synthetic.dsr_table(truth), truth.study(), "es2", 0)
    assert list(points["budget"]) == [0.0, *synthetic.BUDGETS]
    assert np.allclose(points[["refusal", "compliance", "degenerate"]].sum(axis=1), 1.0)
    assert (points["refusal_low"] <= points["refusal"]).all()
    assert (points["refusal"] <= points["refusal_high"]).all()


def test_dsr_rows_are_in_the_order_of_the_attacks() -> None:
    truth = Truth()
    t = synthetic.all_tables(truth)
    points = dot_rows(t.dsr, t.robustness, truth.study())
    assert list(dict.fromkeys(points["row"])) == [
        "direct request", "SCAV, fitted\non base", "SCAV, fitted\non parent", "SCAV, fitted\non itself",
        "random push\n(control)", "adaptive SCAV\nbudget 0.009", "adaptive SCAV\nbudget 0.018",
        "adaptive SCAV\nbudget 0.036",
    ]  # fmt: skip
    figure = dsr_figure(t.dsr, t.robustness, truth.study())
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["AdvBench", "StrongREJECT"]
    for panel in figure.axes:
        assert panel.get_xlim() == (-0.02, 1.02)
        assert len(panel.containers) == sum(points["benchmark"] == "advbench")


def with_addition(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a second attack over budgets, as strong as the first."""
    mine = table[table["attack"] == "scav_adaptive"]
    return pd.concat([table, mine.assign(attack="addition")], ignore_index=True)


def test_several_attacks_over_budgets_have_a_row_each_and_a_worst_case() -> None:
    truth = Truth()
    t = synthetic.all_tables(truth)
    dsr, robustness = with_addition(t.dsr), with_addition(t.robustness)
    names = list(dict.fromkeys(dot_rows(dsr, robustness, truth.study())["row"]))
    assert names[5:] == [
        *(f"adaptive SCAV\nbudget {budget}" for budget in ("0.009", "0.018", "0.036")),
        *(f"activation addition\nbudget {budget}" for budget in ("0.009", "0.018", "0.036")),
        *(f"worst over budgets,\n{factor} x the parent's" for factor in ("0.5", "1", "2")),
    ]
    one = robustness_figure(t.dsr, t.robustness, truth.study())
    two = robustness_figure(dsr, robustness, truth.study())
    assert (len(one.axes), len(two.axes)) == (3, 6)
    labels = [panel.get_ylabel() for panel in two.axes if panel.get_ylabel()]
    assert labels == ["adaptive SCAV\nshare of answers", "activation addition\nshare of answers"]
    for above, below in zip(two.axes[:3], two.axes[3:], strict=True):
        assert named_lines(above) == named_lines(below)


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


def test_dose_is_relative_to_the_parent_and_a_censored_response_points_up() -> None:
    t, study = synthetic.all_tables(NEVER), NEVER.study()
    points = {p.run: p for p in dose_points(t.separability, t.robustness, t.dsr, study, [12, 18])}
    assert set(points) == {"refusal_sft", "hold", "es2"}
    assert points["refusal_sft"].dose.value == pytest.approx(1.0)
    assert points["es2"].dose.value > 1.5
    assert points["es2"].response.censored
    assert points["es2"].response.value == max(synthetic.BUDGETS)
    panel = dose_response_figure(list(points.values()), study).axes[0]
    assert [line.get_marker() for line in panel.get_lines()].count("^") == 2  # hold's own mark and the arrow


def test_balance_sets_harmful_refusals_against_harmless_ones() -> None:
    truth = Truth()
    t, study = synthetic.all_tables(truth), truth.study()
    points = balance_points(t.dsr, study, study.plain, "advbench")
    cells = t.dsr[(t.dsr["attack"] == "direct") & (t.dsr["seed"] == 0)].set_index(["run", "benchmark"])["refusal"]
    assert {run for run, _ in points} == set(study.runs)
    for (run, _), (safe, harmful) in points.items():
        assert safe.value == pytest.approx(cells[run, study.plain])
        assert harmful.value == pytest.approx(cells[run, "advbench"])
    figure = balance_figure(t.dsr, study)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["AdvBench", "StrongREJECT"] * 2
    fields = [panel.patches[0] for panel in figure.axes]
    assert [(field.get_width(), field.get_y()) for field in fields] == [(0.10, 0.85)] * 2 + [(0.25, 0.85)] * 2
    without = t.dsr[t.dsr["benchmark"] != study.plain]
    assert balance_points(without, study, study.plain, "advbench") == {}
    assert balance_figure(without, study).axes[0].texts[0].get_text() == "not measured"


def test_tradeoff_counts_kl_from_one_reference_and_falls_back_to_dsr() -> None:
    truth = Truth()
    t, study = synthetic.all_tables(truth), truth.study()
    measured_by, points = tradeoff_points(t.dsr, t.robustness, t.ability, study)
    assert measured_by == BUDGET
    kl = {p.run: p.costs[0].value for p in points}
    assert kl == {"refusal_sft": 0.0, "hold": 0.0006, "es2": 0.021}
    measured_by, points = tradeoff_points(t.dsr, t.robustness.iloc[:0], t.ability, study)
    assert measured_by == DSR
    assert [p.run for p in points] == list(truth.runs)
    left, right = tradeoff_figure(t.dsr, t.robustness, t.ability, study).axes[0].get_xlim()
    assert left < 0 < 0.0263 < right


def test_cost_groups_the_small_rules() -> None:
    table = cost_by_rule(synthetic.cost_table())
    assert table.index[0] == "generate_answers"
    assert table.index[-1] == "4 others"
    assert table["minutes"].sum() == pytest.approx(synthetic.cost_table()["seconds"].sum() / 60)


def test_figures_of_a_study_without_training_say_so() -> None:
    drawn = figures(ALONE)
    assert "no adaptive\ncurve" in every_text(drawn["robustness"])
    assert "no run was trained" in every_text(drawn["training"])
    assert "no run was both analysed and attacked" in every_text(drawn["dose_response"])
    assert named_lines(drawn["separability"].axes[0]) == ["base"]


def test_a_missing_measure_draws_nothing_and_breaks_nothing() -> None:
    truth = Truth()
    t, study = synthetic.all_tables(truth), truth.study()
    gap = t.separability.assign(low=np.nan, high=np.nan)
    gap.loc[gap["metric"] == "d_prime", "value"] = np.nan
    robustness = t.robustness.assign(low=np.nan, high=np.nan)
    figure = separability_figure(gap, study)
    figure.draw_without_rendering()
    drawn = {
        panel.get_title(loc="left") or panel.get_title(): any(
            np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in panel.lines
        )
        for panel in figure.axes
    }
    assert not drawn["d' along the probe"]
    assert any(drawn.values())
    robustness_figure(t.dsr, robustness, study).draw_without_rendering()
    dose_response_figure(dose_points(gap, robustness, t.dsr, study, [12]), study).draw_without_rendering()
    dsr_figure(t.dsr.assign(dsr_low=np.nan), robustness.iloc[:0], study).draw_without_rendering()


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


def test_tables_are_read_with_empty_cells_and_booleans(tmp_path: Path) -> None:
    path = tmp_path / "robustness.csv"
    synthetic.robustness_table(NEVER).to_csv(path, index=False, float_format="%.6g")
    table = read_table(path)
    assert table["censored"].dtype == bool
    assert table["censored"].any()
    assert np.isinf(table["value"]).any()
    synthetic.dsr_table(Truth()).to_csv(path, index=False, float_format="%.6g")
    table = read_table(path)
    assert set(table.loc[table["run"] == "base", "parent"]) == {""}
    assert len(rows(table, Truth().study(), fitted_on="", attack="direct")) > 0


def test_trained_layers_come_from_the_config_or_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    path.write_text('{"layers": [3, 7], "rule": "d_prime"}')
    assert trained_layers({"layers": "auto"}, path) == [3, 7]
    assert trained_layers({}, path) == [3, 7]
    assert trained_layers({"layers": [12, 18]}, path) == [12, 18]


def test_legend_columns_fit_the_width() -> None:
    assert legend_columns(["base", "refusal SFT", "hold", "ES2"]) == 4
    assert legend_columns(["a run with a rather long name indeed"] * 3) == 1
    assert legend_columns([]) == 1


def test_nothing_is_left_of_a_figure_that_cannot_be_written(tmp_path: Path) -> None:
    broken = SimpleNamespace(savefig=lambda *_, **__: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        save(broken, tmp_path / "x.svg", tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
