"""The figures of synthetic studies, and what can be read in them."""

import synthetic
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import Truth

from es2.plots.balance import balance_figure
from es2.plots.cost import cost_figure
from es2.plots.dose_response import dose_points, dose_response_figure
from es2.plots.dsr import dsr_figure
from es2.plots.robustness import robustness_figure
from es2.plots.separability import separability_figure
from es2.plots.tradeoff import tradeoff_figure
from es2.plots.training import training_figure

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
    layers = {(run, seed): (12, 18) for run in study.runs for seed in truth.seeds}
    points = dose_points(t.separability, t.robustness, t.dsr, study, layers)
    return {
        "separability": separability_figure(t.separability, study, {"es2": [12, 18]}),
        "robustness": robustness_figure(t.dsr, t.robustness, study),
        "dsr": dsr_figure(t.dsr, t.robustness, study),
        "training": training_figure(synthetic.training_table(truth), study),
        "dose_response": dose_response_figure(points, study),
        "balance": balance_figure(t.dsr, study),
        "tradeoff": tradeoff_figure(t.dsr, t.robustness, t.ability, study),
        "cost": cost_figure(synthetic.cost_table()),
    }


def named_lines(panel: Axes) -> list[str]:
    """The labels of a panel's lines, those that a legend would show."""
    return [str(line.get_label()) for line in panel.get_lines() if not str(line.get_label()).startswith("_")]


def legend_texts(figure: Figure) -> list[str]:
    """The words of a figure's legends."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


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


def every_text(figure: Figure) -> str:
    """All that a reader can read in a figure."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in drawn_texts(figure))
