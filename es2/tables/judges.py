"""`judges.csv`: how far the judges of a study agree about the same answers (method.md section 7)."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from es2.judges.verdict import Verdict
from es2.kappa import kappas
from es2.tables.verdicts import ATTACK, RUN

ANSWER = [*RUN, *ATTACK, "setting", "budget", "benchmark", "split", "prompt_id", "draw"]
COLUMNS = [
    *RUN, *ATTACK, "judge_a", "judge_b", "n", "n_both", "n_missing_a", "n_missing_b", "agreement", "kappa",
    "kappa_low", "kappa_high",
]  # fmt: skip


def judges_table(verdicts: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """One row a run, attack and pair of judges, over the answers that both were shown.

    verdicts: from `read_verdicts`. n counts these answers, n_both those on which both verdicts could be read and are
    not both `degenerate`, for that is told by one detector for all judges and would pass for agreement. agreement is
    the share of n_both with one and the same verdict, kappa Cohen's, its interval a bootstrap over prompts.
    """
    judges = sorted(set(verdicts["judge"]))
    rows = [row for first, second in combinations(judges, 2) for row in _compared(verdicts, first, second, seed)]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:9], kind="stable", ignore_index=True)


def _compared(verdicts: pd.DataFrame, first: str, second: str, seed: int) -> Iterator[dict[str, Any]]:
    sides = [verdicts[verdicts["judge"] == judge][[*ANSWER, "verdict"]] for judge in (first, second)]
    answers = sides[0].merge(sides[1], on=ANSWER, validate="one_to_one", suffixes=("_a", "_b"))
    for key, cell in answers.groupby([*RUN, *ATTACK], sort=False):
        said = cell[["verdict_a", "verdict_b"]]
        missing, degenerate = said == Verdict.MISSING, said == Verdict.DEGENERATE
        both = cell[~missing.any(axis=1) & ~degenerate.all(axis=1)]
        names = {"verdict_a": "label", "verdict_b": "verdict", "prompt_id": "prompt"}
        kappa, low, high = kappas(both.rename(columns=names), seed) if len(both) else (np.nan, np.nan, np.nan)
        yield {
            **dict(zip([*RUN, *ATTACK], key, strict=True)),
            "judge_a": first,
            "judge_b": second,
            "n": len(cell),
            "n_both": len(both),
            "n_missing_a": int(missing["verdict_a"].sum()),
            "n_missing_b": int(missing["verdict_b"].sum()),
            "agreement": float((both["verdict_a"] == both["verdict_b"]).mean()),
            "kappa": kappa,
            "kappa_low": low,
            "kappa_high": high,
        }
