"""The README's two tables are the released contest's and main table, cell by cell (docs/reference)."""

from pathlib import Path

import pandas as pd

from es2.summary import shown_table

ROOT = Path(__file__).parents[1]


def tables(path: Path) -> list[list[list[str]]]:
    """The cells of a Markdown file's tables, without their rules."""
    found: list[list[list[str]]] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not set("".join(cells)) <= {"-", ":"}:
                found[-1].append(cells)
        inside = line.startswith("|")
    return found


def test_the_readme_shows_the_released_contest_first() -> None:
    released = tables(ROOT / "docs/reference/contest/contest.md")[0]
    assert len(released) >= 12
    assert tables(ROOT / "README.md")[0] == released


def test_the_readme_shows_the_released_main_table() -> None:
    head, body = shown_table(pd.read_csv(ROOT / "docs/reference/main.csv"))
    assert len(body) >= 8
    assert tables(ROOT / "README.md")[1] == [head, *body]
