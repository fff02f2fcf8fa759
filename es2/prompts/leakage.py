"""Whether the splits leak and whether style alone tells harmful from harmless (method.md §3)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from es2.errors import UserError
from es2.prompts.cleaning import form_of
from es2.prompts.splits import NEAR_TWIN, jaccard_blocks

MAX_LENGTH_DIFFERENCE = 3.0  # words, between medians
MIN_FORM_SHARE = 0.5  # method.md §3: at least half of the plain prompts are twins in form
_COLUMNS = ["check", "value", "limit", "ok"]
_Check = tuple[str, float, float | None, bool]


def check_leakage(prompts: pd.DataFrame) -> pd.DataFrame:
    """Return the checks of all prompt sets together: check, value, limit (empty: shown, not judged), ok.

    `prompts` has the columns prompt_id, prompt, set, label and split. Style is compared between the harmful
    and the safe sets that have an attack split, since these fit the probes: lengths in words (medians), the
    share of safe prompts in AdvBench's form, and the test AUROC of length alone and of a bag of words, both
    fitted on the attack split (those of `separability.csv` are of all test sets). Raises UserError for a prompt in
    two splits.
    """
    checks = [_disjoint(prompts), _nearest(prompts)]
    fitted = set(prompts.loc[prompts["split"] == "attack", "set"])
    compared = prompts[prompts["set"].isin(fitted)]
    if compared["label"].nunique() == 2:
        checks.extend(_style(compared))
    return pd.DataFrame(checks, columns=_COLUMNS)


def _disjoint(prompts: pd.DataFrame) -> _Check:
    splits = prompts.groupby("prompt_id")["split"].nunique()
    if twice := sorted(splits.index[splits > 1]):
        rows = prompts[prompts["prompt_id"] == twice[0]].drop_duplicates("split")
        places = " and ".join(f"{row.split} of prompt_sets.{row.set}" for row in rows.itertuples())
        raise UserError(
            f"{len(twice)} prompt(s) stand in two splits, the first (id {twice[0]}) in {places}: "
            "take it out of one of them."
        )
    return ("prompts_in_two_splits", 0.0, 0.0, True)


def _nearest(prompts: pd.DataFrame) -> _Check:
    """Return the largest content-word Jaccard index of two prompts in different splits."""
    splits = prompts["split"].to_numpy()
    blocks = jaccard_blocks(list(prompts["prompt"]))
    across = (j[splits[rows] != splits[columns]] for rows, columns, j in blocks)
    largest = max((float(j.max()) for j in across if j.size), default=0.0)
    return ("max_jaccard_across_splits", largest, NEAR_TWIN, largest < NEAR_TWIN)


def _style(compared: pd.DataFrame) -> Iterator[_Check]:
    safe = compared[compared["label"] == "safe"]
    harmful = compared[compared["label"] == "harmful"]
    apart = abs(float(np.median(_words(harmful["prompt"])) - np.median(_words(safe["prompt"]))))
    yield ("median_length_difference", apart, MAX_LENGTH_DIFFERENCE, apart <= MAX_LENGTH_DIFFERENCE)
    share = float(np.mean([form_of(text) == "imperative" for text in safe["prompt"]]))
    yield ("safe_share_in_advbench_form", share, MIN_FORM_SHARE, share >= MIN_FORM_SHARE)
    test = compared[compared["split"] == "test"]
    if test["label"].nunique() == 2:
        fit = compared[compared["split"] == "attack"]
        yield ("style_auroc_length", _auroc(FunctionTransformer(_words), fit, test), None, True)
        yield ("style_auroc_bag_of_words", _auroc(CountVectorizer(token_pattern=r"\w+"), fit, test), None, True)


def _words(texts: pd.Series) -> np.ndarray:
    """Return the numbers of words: float64 [n, 1]."""
    return np.array([[float(len(text.split()))] for text in texts])


def _auroc(features: object, fit: pd.DataFrame, test: pd.DataFrame) -> float:
    scale = StandardScaler(with_mean=False)
    model = make_pipeline(features, scale, LogisticRegression(max_iter=1000))
    model.fit(fit["prompt"], fit["label"] == "harmful")
    return float(roc_auc_score(test["label"] == "harmful", model.decision_function(test["prompt"])))
