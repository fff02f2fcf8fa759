"""`directions.csv`: which layer's refusal direction an ablation needs, and whether the defence turned it (section 6).

The direction of a layer is that of es2.attacks.directions: from the harmful prompts' mean embedding to the safe ones'.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from es2.embeddings import Embeddings
from es2.tables.verdicts import RUN, SHARES, who

COLUMNS = [*RUN, "attack", "layer", "n", *SHARES, "chosen", "cosine_to_parent"]


def directions(embeddings: Embeddings, prompts: pd.DataFrame) -> Tensor:
    """Unit mean differences [L, d] on prompts (columns prompt_id, label)."""
    values = embeddings.of(prompts["prompt_id"].tolist())
    harmful = torch.tensor((prompts["label"] == "harmful").to_numpy())
    difference = values[~harmful].mean(dim=0) - values[harmful].mean(dim=0)
    return difference / difference.norm(dim=-1, keepdim=True)


def directions_table(
    rows: Sequence[Mapping[str, Any]],
    searches: Sequence[pd.DataFrame],
    own: Sequence[Embeddings],
    parents: Sequence[Embeddings],
    prompts: pd.DataFrame,
) -> pd.DataFrame:
    """A row a run and layer that the ablation's first stage tried.

    All sequences are in the order of `rows` (run ... seed, attack). searches: the attacker's trials (stage, setting, n,
    shares, chosen); own, parents: embeddings of the run and of its parent; prompts: what the attacker fits on.
    `chosen` marks the layer that the attacker took in the end.
    """
    out = []
    for row, search, mine, before in zip(rows, searches, own, parents, strict=True):
        cosine = (directions(mine, prompts) * directions(before, prompts)).sum(dim=-1)
        taken = chosen_layer(search)
        for trial in search[search["stage"] == 1].to_dict("records"):
            layer = _layer(trial["setting"])
            told = {name: trial[name] for name in ("n", *SHARES)}
            found = {"chosen": layer == taken, "cosine_to_parent": cosine[layer].item()}
            out.append(who(row) | {"attack": row["attack"], "layer": layer} | told | found)
    return pd.DataFrame(out, columns=COLUMNS)


def chosen_layer(search: pd.DataFrame) -> int:
    """The layer whose direction the attacker took in the end, by its search."""
    return _layer(search.loc[search["chosen"], "setting"].iloc[0])


def _layer(setting: str) -> int:
    """The layer that the name of es2.attacks.ablation.AblationSetting ends with."""
    return int(setting.split()[-1])
