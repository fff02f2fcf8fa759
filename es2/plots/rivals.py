"""Rivals: two runs set against each other under every attack (method.md section 7)."""

import pandas as pd
from matplotlib.figure import Figure

from es2.plots.contest import COSTS
from es2.plots.forest import forest_figure
from es2.plots.style import style
from es2.reporting import Study, attack_name

RATIO, DSR, COST = "half-compliance\nbudget, a / b", "DSR,\na less b", "harmless refused,\na less b"


def rivals_figure(rivals: pd.DataFrame, study: Study) -> Figure:
    """Three panels, a row a pair, a marker an attack (or a harmless set) with its 95 % interval.

    Filled: what is claimed (see es2.tables.rivals).
    """
    mine = rivals[rivals["model"] == study.model]
    pairs = [pair for pair in study.pairs if pair in set(zip(mine["run_a"], mine["run_b"], strict=True))]
    places = [pairs.index(pair) for pair in zip(mine["run_a"], mine["run_b"], strict=True)]
    ratio = mine["measure"] == "half_compliance_ratio"
    told = mine.assign(key=mine["run_a"] + "/" + mine["run_b"], row=places)
    told = told.assign(filled=mine["claimed"].astype(bool))
    told = told.assign(
        name=[COSTS.get(m) or attack_name(a) for m, a in zip(told["measure"], told["attack"], strict=True)]
    )
    cost, refused = told["measure"].isin(COSTS), told["measure"].isin(("dsr", "robust_dsr"))
    points = {RATIO: told[ratio & told["value"].notna()], DSR: told[refused], COST: told[cost]}
    labels = [f"a: {study.label(a)}\nb: {study.label(b)}" for a, b in pairs]
    with style():
        return forest_figure(points, labels, {RATIO: 1.0, DSR: 0.0, COST: 0.0}, 5.0 + 3.2 * max(len(pairs), 1))
