"""At which token of a refusal an ablation turns the answer (method.md section 6)."""

import pandas as pd
from matplotlib.figure import Figure

from es2.plots.style import new_figure, run_legend, run_styles, say_empty, style
from es2.reporting import Study, first_seeds

SHOWN = 12  # tokens: after them nothing happens


def turning_figure(turning: pd.DataFrame, study: Study) -> Figure:
    """KL to the parent's refusals by token under the ablation that the attacker chose, a line a run at its first seed;
    a diamond is the mean over all tokens, which a loss over whole answers sees."""
    mine = turning[turning["model"] == study.model]
    mine = first_seeds(mine)
    runs = [run for run in study.runs if run in set(mine["run"])]
    looks = run_styles(study)
    with style():
        figure, axes = new_figure(6.5, 1, 1)
        panel = axes[0, 0]
        panel.set_title("KL to the parent's refusals, direction ablated, nats")
        panel.set_xlabel("token of the answer")
        if not runs:
            say_empty(panel, "no refusals under ablation")
        for run in runs:
            look, whole = looks[run], mine[mine["run"] == run].sort_values("token")
            mean = (whole["kl_ablated"] * whole["n"]).sum() / whole["n"].sum()
            line = whole[whole["token"] <= SHOWN]
            panel.plot(line["token"], line["kl_ablated"], color=look.color, ls=look.dashes, lw=1.4, label=f"_{run}")
            panel.plot([SHOWN + 1], [mean], color=look.color, marker="D", ms=5, ls="", label=f"_mean_{run}")
        if runs:
            panel.set_ylim(bottom=0)
            panel.set_xticks([1, *range(2, SHOWN + 1, 2), SHOWN + 1], ["1", *map(str, range(2, SHOWN + 1, 2)), "mean"])
        run_legend(figure, study, runs, markers=False)
    return figure
