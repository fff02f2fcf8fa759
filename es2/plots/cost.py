"""Time by rule: how long the jobs of each rule took together, with their number and largest memory."""

import pandas as pd
from matplotlib.figure import Figure

from es2.plots.style import PALETTE, new_figure, say_empty, style


def cost_by_rule(cost: pd.DataFrame) -> pd.DataFrame:
    """Jobs, minutes and gigabytes (largest job) a rule, longest first; the rules under 1 % of the time in one
    row.
    """
    groups = cost.groupby("rule")
    table = pd.DataFrame(
        {
            "jobs": groups.size(),
            "minutes": groups["seconds"].sum() / 60,
            "gigabytes": groups["peak_mb"].max() / 1024,
        }
    ).sort_values("minutes", ascending=False)
    small = table[table["minutes"] < 0.01 * table["minutes"].sum()]
    if len(small) < 2:
        return table
    rest = pd.DataFrame(
        {
            "jobs": [small["jobs"].sum()],
            "minutes": [small["minutes"].sum()],
            "gigabytes": [small["gigabytes"].max()],
        },
        index=[f"{len(small)} others"],
    )
    return pd.concat([table.drop(small.index), rest])


def cost_figure(cost: pd.DataFrame) -> Figure:
    """A bar a rule, in minutes of wall time summed over its jobs (two jobs at once count twice)."""
    table = cost_by_rule(cost)
    with style():
        figure, grid = new_figure(2.4 + 0.75 * max(len(table), 2))
        panel = grid[0, 0]
        if table.empty:
            say_empty(panel, "no job was timed")
            return figure
        panel.barh(range(len(table)), table["minutes"], color=PALETTE[0], height=0.7)
        for i, row in enumerate(table.itertuples()):
            memory = "" if pd.isna(row.gigabytes) else f", {row.gigabytes:.1f} GB"
            jobs = f"{row.jobs} job" + ("s" if row.jobs > 1 else "")
            panel.annotate(
                f"{row.minutes:.1f} min, {jobs}{memory}",
                (row.minutes, i),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        panel.set_yticks(range(len(table)), [str(name).replace("_", " ") for name in table.index])
        panel.invert_yaxis()
        panel.tick_params(axis="y", length=0)
        panel.set_xlim(0, float(table["minutes"].max()) * 1.75)
        panel.set_xlabel(f"minutes over all jobs (together {table['minutes'].sum():.0f})")
    return figure
