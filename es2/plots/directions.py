"""Which layer's direction carries the refusal, and whether the defence turned it (method.md section 6)."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from es2.plots.style import GREY, new_figure, run_legend, run_styles, say_empty, style
from es2.reporting import Study, first_seeds

PANELS = {
    "compliance": "compliance, the direction of layer k ablated",
    "cosine_to_parent": "cosine to the parent's direction of layer k",
}
EARLIER = "; dots: best of earlier tokens"
FOOT, ROW = -0.08, 0.08  # where the first row of triangles stands, and how far apart rows are


def directions_figure(directions: pd.DataFrame, study: Study, changed: Mapping[str, Sequence[int]]) -> Figure:
    """Two panels over the layer whose mean difference is projected out, a line a run at its first seed.

    Lines are of the directions at a prompt's last token, dots the best of those at earlier tokens; a star is the
    direction that the attacker takes in the end. `changed` has the layers at which a run's training changes
    states: triangles at the foot, a row a run.
    """
    mine = directions[directions["model"] == study.model]
    mine = first_seeds(mine)
    runs = [run for run in study.runs if run in set(mine["run"])]
    looks = run_styles(study)
    feet = {run: FOOT - k * ROW for k, run in enumerate(run for run in runs if run in changed)}
    with style():
        figure, axes = new_figure(11.5, 2, 1, sharex=True)
        for panel, (measure, title) in zip(axes[:, 0], PANELS.items(), strict=True):
            panel.set_title(title + (EARLIER if measure == "compliance" and (mine["earlier"] > 0).any() else ""))
            panel.set_ylim(min([-0.05, *[foot - ROW for foot in feet.values()]]), 1.08)
            if not runs:
                say_empty(panel, "no ablation", keep_y=True)
            for run in runs:
                look, tried = looks[run], mine[mine["run"] == run].sort_values("layer")
                line = tried[tried["earlier"] == 0]
                panel.plot(line["layer"], line[measure], color=look.color, ls=look.dashes, lw=1.4, label=f"_{run}")
                best = tried[tried["earlier"] > 0].groupby("layer")[measure].max()
                panel.plot(best.index, best, color=look.color, ls="", marker="o", ms=3.5, label=f"_earlier_{run}")
                if run in feet:
                    panel.plot(
                        changed[run], [feet[run]] * len(changed[run]), color=look.color, ls="", marker="^", ms=5,
                        label=f"_changed_{run}",
                    )  # fmt: skip
                taken = tried[tried["chosen"].astype(bool)]
                panel.plot(
                    taken["layer"], taken[measure], color=look.color, ls="", marker="*", ms=11, mec="white", mew=0.6,
                    label=f"_chosen_{run}",
                )  # fmt: skip
        axes[0, 0].axhline(0.5, color=GREY, lw=0.8, ls=":", zorder=0)
        axes[1, 0].set_xlabel("layer k")
        run_legend(figure, study, runs, markers=False)
    return figure
