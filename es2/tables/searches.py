"""`searches.csv`: all that the attackers of a scope tried on validation, and what each took (method.md section 6)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from es2.tables.verdicts import RUN, SHARES, who

TRIED = ["stage", "setting", "budget", "n", *SHARES, "chosen"]
COLUMNS = [*RUN, "attack", "fitted_on", *TRIED]


def searches_table(rows: Sequence[Mapping[str, Any]], searches: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A row a setting that was tried, at each stage and budget; `rows` (run ... seed, attack, the models that it
    is fitted on) of each search, in order.

    A soft prompt's settings are the snapshots of its training, so that its rows tell how many steps it takes to bring
    out compliance; an attack without a budget has none.
    """
    parts = [
        search[TRIED].assign(**who(row), attack=row["attack"], fitted_on=", ".join(row["fitted_on"]))[COLUMNS]
        for row, search in zip(rows, searches, strict=True)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
