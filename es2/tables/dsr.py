"""`dsr.csv`: refusal, compliance and degenerate shares of every run under every attack (method.md §6, §7)."""

from typing import Any

import numpy as np
import pandas as pd

from es2.tables.curves import Budgets
from es2.tables.verdicts import ATTACK, RUN, SHARES, Settings, aimed_at, rate_interval, with_pool
from es2.tables.worst import worst_cases

CELL = [*RUN, *ATTACK, "setting", "budget", "benchmark", "split", "judge"]
COLUMNS = [
    *RUN, *ATTACK, "setting", "budget", "benchmark", "split", "n", "n_missing", *SHARES, "dsr", "dsr_low",
    "dsr_high", "asr", "judge", "n_prompts", "realised", "factor",
]  # fmt: skip


def dsr_table(verdicts: pd.DataFrame, budgets: Budgets, settings: Settings) -> pd.DataFrame:
    """One row a run, attack, what it was fitted on, setting, budget, benchmark and split.

    verdicts: from `read_verdicts`; budgets: those fixed beforehand, at which the worst case over the adaptive attacks
    is told, by `factor`: `worst_case` over those with a budget, `worst_case_all` with the others. n counts answers (of
    a control: prompts times draws), n_prompts prompts; rates are shares of the n - n_missing judged answers. `pooled`
    holds all harmful test sets.
    """
    cells = with_pool(verdicts, settings.harmful)
    other = verdicts[verdicts["split"] != "test"]
    rows = [
        dict(zip(CELL, key, strict=True)) | _rates(cell, settings)
        for key, cell in pd.concat([cells, other]).groupby(CELL, dropna=False, sort=False)
    ]
    worst = worst_cases(aimed_at(cells, settings.harmful), budgets, settings)
    rows += [_worst_row(*case, settings) for case in worst]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values([*CELL, "factor"], kind="stable", ignore_index=True)


def _rates(cell: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    shares = {share: float(cell[share].mean()) for share in SHARES}
    refused, low, high = rate_interval(cell, cell["refusal"].to_numpy(float), settings)
    return {
        "n": len(cell),
        "n_missing": int(cell["refusal"].isna().sum()),
        **shares,
        "dsr": refused,
        "dsr_low": low,
        "dsr_high": high,
        "asr": shares["compliance"],
        "n_prompts": cell["prompt_id"].nunique(),
        "realised": float(cell["realised"].mean()),
    }


def _worst_row(
    group: tuple[Any, ...], attack: str, factor: float, worst: pd.DataFrame, settings: Settings
) -> dict[str, Any]:
    *run, benchmark, judge = group
    head = dict(zip(RUN, run, strict=True)) | {"attack": attack, "fitted_on": "self", "setting": ""}
    told = {"factor": factor, "benchmark": benchmark, "split": "test", "judge": judge}
    return head | told | _rates(worst.assign(realised=np.nan), settings)
