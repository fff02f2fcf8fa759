"""Reading the prepared prompt tables."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def read_prompt_tables(paths: Sequence[str | Path]) -> pd.DataFrame:
    """All prompts of several sets in one frame, one row a (set, prompt); columns as es2.prompts.prepare writes them."""
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def unique_texts(prompts: pd.DataFrame) -> dict[str, str]:
    """{prompt_id: prompt} in table order, each prompt once."""
    return dict(zip(prompts["prompt_id"], prompts["prompt"], strict=True))
