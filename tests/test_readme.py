"""The README's main table is the released study's, cell by cell (docs/reference)."""

from pathlib import Path

import pandas as pd

from es2.summary import shown_table

ROOT = Path(__file__).parents[1]


def readme_table() -> list[list[str]]:
    """The cells of the README's first table, without its rule."""
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    end = next(i for i, row in enumerate(table) if len(row) != len(table[0]))
    return [row for row in table[:end] if not set("".join(row)) <= {"-", ":"}]


def test_the_readme_shows_the_released_main_table() -> None:
    head, body = shown_table(pd.read_csv(ROOT / "docs/reference/main.csv"))
    assert len(body) >= 8
    assert readme_table() == [head, *body]
