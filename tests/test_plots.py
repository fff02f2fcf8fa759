"""What all figures share: whole texts, equal bytes, colours, and what is said where nothing was measured."""

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic
from drawing import ALONE, SWEEP, drawn_texts, every_text, figures, named_lines
from synthetic import Truth

from es2.plots.dose_response import dose_points, dose_response_figure
from es2.plots.dsr import dsr_figure
from es2.plots.robustness import robustness_figure
from es2.plots.separability import separability_figure
from es2.plots.style import FONT_PT, LIGHT, READING_WIDTH_CM, WIDTH_CM, legend_columns, run_styles, save


def test_text_is_eight_points_at_reading_width() -> None:
    assert pytest.approx(8.0) == FONT_PT * READING_WIDTH_CM / WIDTH_CM


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
    points = dose_points(gap, robustness, t.dsr, study, {(run, 0): (12,) for run in study.runs})
    dose_response_figure(points, study).draw_without_rendering()
    dsr_figure(t.dsr.assign(dsr_low=np.nan), robustness.iloc[:0], study).draw_without_rendering()


def test_layers_are_marked_where_all_runs_change_the_same() -> None:
    t, study = synthetic.all_tables(Truth()), Truth().study()

    def marked(changed: dict[str, list[int]]) -> list[float]:
        panel = separability_figure(t.separability, study, changed).axes[0]
        return [line.get_xdata()[0] for line in panel.lines if len(line.get_xdata()) == 2 and line.get_color() == LIGHT]

    assert marked({"es2": [12, 18], "other": [12, 18]}) == [12, 18]
    assert marked({"es2": [12, 18], "other": [18]}) == []
    assert marked({}) == []


def test_legend_columns_fit_the_width() -> None:
    assert legend_columns(["base", "refusal SFT", "hold", "ES2"]) == 4
    assert legend_columns(["a run with a rather long name indeed"] * 3) == 1
    assert legend_columns([]) == 1


def test_nothing_is_left_of_a_figure_that_cannot_be_written(tmp_path: Path) -> None:
    broken = SimpleNamespace(savefig=lambda *_, **__: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        save(broken, tmp_path / "x.svg", tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
