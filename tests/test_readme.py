"""Tables in README and docs are the released ones, cell by cell; the sections of the method that are cited exist."""

import re
from pathlib import Path

import pandas as pd
import pytest

from es2.summary import shown_table

ROOT = Path(__file__).parents[1]
COUNTED = (("verdict", "compliance"), ("verdict_1_2", "compliance"), ("label", "compliance"), ("label", "degenerate"))


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


SHOWN = {
    "docs/contest.md": "contest",
    "docs/contest_circuit_breakers.md": "contest_circuit_breakers",
    "docs/contest_each.md": "contest_each",
    "docs/earlier_contest.md": "contest_pairs",
}


def released(sweep: str) -> list[list[str]]:
    """A sweep's released table of every attack."""
    table = tables(ROOT / f"docs/reference/{sweep}/contest.md")[0]
    assert len(table) >= 12
    return table


@pytest.mark.parametrize("page", SHOWN)
def test_a_page_shows_its_sweeps_released_table_first(page: str) -> None:
    assert tables(ROOT / page)[0] == released(SHOWN[page])


def test_the_readmes_first_table_is_rows_of_the_released_contest() -> None:
    shown, known = tables(ROOT / "README.md")[0], released("contest")
    assert len(shown) >= 8
    assert shown == [row for row in known if row in shown]
    assert shown[0] == known[0]


def test_the_readme_shows_the_released_main_table() -> None:
    head, body = shown_table(pd.read_csv(ROOT / "docs/reference/main.csv"))
    assert len(body) >= 8
    assert tables(ROOT / "README.md")[1] == [head, *body]


def test_the_readme_shows_the_config_of_a_model_of_ones_own() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = (ROOT / "config/examples/own_model.yaml").read_text(encoding="utf-8").splitlines()
    assert shown.splitlines() == [line for line in lines if not line.startswith("#")]


def test_the_second_models_page_shows_its_released_tables() -> None:
    released = tables(ROOT / "docs/reference/second_model/attacks/contest.md")[0]
    assert len(released) >= 12
    assert tables(ROOT / "docs/second_model.md")[0] == released
    head, body = shown_table(pd.read_csv(ROOT / "docs/reference/second_model/main.csv"))
    assert len(body) >= 7
    assert tables(ROOT / "docs/second_model.md")[2] == [head, *body]


def test_the_second_models_page_counts_the_released_labels() -> None:
    labels = pd.read_csv(ROOT / "docs/reference/second_model/labels/labels.csv")
    mine = labels[labels["run"] == "es2"].groupby(["attack", labels["budget"].fillna(0)])
    found = {key: [str(len(cell)), *(str((cell[who] == what).sum()) for who, what in COUNTED)] for key, cell in mine}
    shown = tables(ROOT / "docs/second_model.md")[1][1:]
    named = {"prefill": "prefill", "addition": "addition", "SCAV": "scav_adaptive", "ablation": "ablation"}
    told = {}
    for name, *counts in shown:
        attack, _, budget = name.replace("budget ", "").partition(", ")
        told[(named[attack], float(budget or 0))] = counts
    assert told == found


def test_every_section_of_the_method_that_is_cited_exists() -> None:
    sections = set(re.findall(r"^## (\d+)\.", (ROOT / "docs/method.md").read_text(encoding="utf-8"), re.MULTILINE))
    files = [path for folder in ("es2", "tests", "workflow") for path in (ROOT / folder).rglob("*.*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".smk")]
    cited = re.findall(r"method\.md\s+(?:§|sections? )([\d, §andto]*\d)", "\n".join(texts))
    assert len(cited) > 40
    assert {number for one in cited for number in re.findall(r"\d+", one)} <= sections
