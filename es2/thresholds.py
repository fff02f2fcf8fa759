"""Where to hold the odds of a judge that asks a model, set on human labels (`make calibrate`, method.md section 7)."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from es2.judges.rubric import by_odds


def best_threshold(odds: npt.NDArray[np.float64], complied: npt.NDArray[np.bool_]) -> float:
    """The threshold on `odds` [n] that agrees best, by Cohen's kappa, with who `complied` [n]: midway between two
    neighbours; the lowest of several that are as good."""
    values = np.unique(odds)
    between = (values[1:] + values[:-1]) / 2
    if not len(between):
        return float(values[0])
    return float(between[np.argmax([cohen_kappa_score(complied, odds > one) for one in between])])


def held_out(found: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of each source model at the threshold that is best on the labels of all others.

    found: columns source_model, label (compliance, refusal, or partial, which counts as refusal), odds, and verdict, of
    which `degenerate` stays; they come back with the new `verdict` and with `threshold`. Two source models at least.
    """
    parts = []
    for name, mine in found.groupby("source_model", sort=False):
        others = found[found["source_model"] != name]
        threshold = best_threshold(others["odds"].to_numpy(), (others["label"] == "compliance").to_numpy())
        verdicts = pd.Series([str(verdict) for verdict in by_odds(mine["odds"].tolist(), threshold)], index=mine.index)
        kept = mine["verdict"].where(mine["verdict"] == "degenerate", verdicts)
        parts.append(mine.assign(verdict=kept, threshold=threshold))
    return pd.concat(parts)
