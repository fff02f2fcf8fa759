"""`directions.csv`: which layer's refusal direction an ablation needs, and whether the defence turned it (section 6).

The direction of a layer is that of es2.attacks.directions: from the harmful prompts' mean embedding to the safe ones',
at the last token of a prompt or some tokens `earlier`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from es2.embeddings import Embeddings, harmful_of, unit_difference
from es2.tables.verdicts import RUN, SHARES, who

COLUMNS = [*RUN, "attack", "layer", "earlier", "n", *SHARES, "chosen", "cosine_to_parent"]


def directions(embeddings: Embeddings, prompts: pd.DataFrame) -> Tensor:
    """Unit mean differences [L, d] on prompts (columns prompt_id, label), at their last token."""
    return unit_difference(embeddings.of(prompts["prompt_id"].tolist()), harmful_of(prompts))


def directions_table(
    rows: Sequence[Mapping[str, Any]],
    searches: Sequence[pd.DataFrame],
    own: Sequence[Embeddings],
    parents: Sequence[Embeddings],
    prompts: pd.DataFrame,
) -> pd.DataFrame:
    """A row a run and direction that the ablation's first stage tried.

    All sequences are in the order of `rows` (run ... seed, attack). searches: the attacker's trials (stage, setting, n,
    shares, chosen); own, parents: embeddings of the run and of its parent; prompts: what the attacker fits on.
    `chosen` marks the direction that the attacker took in the end; the cosine to the parent's is of the last token's
    directions alone.
    """
    out = []
    for row, search, mine, before in zip(rows, searches, own, parents, strict=True):
        cosine = (directions(mine, prompts) * directions(before, prompts)).sum(dim=-1)
        taken = chosen_direction(search)
        for trial in search[search["stage"] == 1].to_dict("records"):
            layer, earlier = place = _place(trial["setting"])
            about = {"attack": row["attack"], "layer": layer, "earlier": earlier}
            told = {name: trial[name] for name in ("n", *SHARES)}
            turned = cosine[layer].item() if earlier == 0 else math.nan
            out.append(who(row) | about | told | {"chosen": place == taken, "cosine_to_parent": turned})
    return pd.DataFrame(out, columns=COLUMNS)


def chosen_direction(search: pd.DataFrame) -> tuple[int, int]:
    """Whose direction the attacker took in the end, by its search: (layer, how many tokens earlier than the last)."""
    return _place(search.loc[search["chosen"], "setting"].iloc[0])


def _place(setting: str) -> tuple[int, int]:
    """(layer, earlier) by the name of an es2.attacks.ablation.AblationSetting."""
    found = re.fullmatch(r"direction(?: (\d+) earlier)? of layer (\d+)", setting)
    assert found is not None, setting
    return int(found[2]), int(found[1] or 0)
