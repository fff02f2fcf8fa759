"""The first page: five sentences and two tables, as reStructuredText, as HTML and on the terminal.

`python -m es2.findings RESULTS_DIR` prints the sentences and the main table of a finished study.
"""

import html
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from es2.errors import UserError
from es2.reporting import Study, rows, seeds
from es2.sentences import Finding, five_sentences
from es2.summary import Tables, main_table, shown_table, targets_table

HEADING = "What was found"
NOTE = (
    "Shares of test prompts with 95 % intervals. Half-compliance budget: the relative size of an adaptive "
    "push (RMS of "
    "|step| / |e|) at which half of the answers comply. Verdicts are a keyword judge's: complying means "
    "not refusing, "
    "not that harm was done."
)
CSS = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:1.5rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.6rem 0 1.6rem;font-size:14px}
th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
thead th{border-bottom:2px solid #767676}li{margin:.5rem 0}.note{color:#555;font-size:13px}
.met{color:#00664b}.not{color:#a33c00;font-weight:600}"""


@dataclass(frozen=True)
class Page:
    """The first page's part about one model: its sentences and its two tables (long form)."""

    study: Study
    findings: list[Finding]
    main: pd.DataFrame
    targets: pd.DataFrame


def make_page(tables: Tables, study: Study, layers: Sequence[int]) -> Page:
    """Everything the first page says about one model; the sentences are about the main run's first seed."""
    have = seeds(rows(tables.dsr, study), study.main)
    seed = have[0] if have else 0
    findings = five_sentences(tables, study, layers, seed)
    return Page(study, findings, main_table(tables, study), targets_table(tables, study))


def findings_frame(pages: Sequence[Page]) -> pd.DataFrame:
    """The sentences as a table: run, model, method, parent, seed, topic, verdict, sentence."""
    out = []
    for page in pages:
        mine = page.main[page.main["run"] == page.study.main]
        head = {key: mine.iloc[0][key] if len(mine) else "" for key in ("method", "parent", "seed")}
        keys = {"run": page.study.main, "model": page.study.model} | head
        out += [keys | asdict(finding) for finding in page.findings]
    return pd.DataFrame(out)


def page_tables(page: Page) -> list[tuple[str, list[str], list[list[str]]]]:
    """The two tables of a page as they are read: title, head, rows."""
    head, body = shown_table(page.main)
    told = page.targets[["run", "target", "text", "status"]]
    targets = [[page.study.label(run), *map(str, rest)] for run, *rest in told.itertuples(index=False)]
    return [
        ("Main table", head, body),
        ("Targets set beforehand", ["run", "target", "measured on test", "result"], targets),
    ]


def to_rst(pages: Sequence[Page]) -> str:
    """The first page as reStructuredText; with several models each has its own heading."""
    lines = [HEADING, "-" * len(HEADING), ""]
    for page in pages:
        if len(pages) > 1:
            title = page.study.label(page.study.model)
            lines += [title, "~" * len(title), ""]
        lines += [f"{i}. {_escape(finding.sentence)}" for i, finding in enumerate(page.findings, 1)] + [""]
        for title, head, body in page_tables(page):
            lines += _rst_table(title, head, body)
            if title == "Main table":
                lines += [_escape(NOTE), ""]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text without reStructuredText's own marks."""
    for mark in "\\*`_|":
        text = text.replace(mark, "\\" + mark)
    return text


def _rst_table(title: str, head: list[str], body: list[list[str]]) -> list[str]:
    lines = [f".. list-table:: {title}", "   :header-rows: 1", "   :stub-columns: 1", ""]
    for row in [head, *body]:
        lines += [f"   {'*' if i == 0 else ' '} - {_escape(cell)}".rstrip() for i, cell in enumerate(row)]
    return [*lines, ""]


def to_html(pages: Sequence[Page]) -> str:
    """The first page as one HTML file that needs nothing else."""
    parts = [f"<h1>{HEADING}</h1>"]
    for page in pages:
        if len(pages) > 1:
            parts.append(f"<h2>{html.escape(page.study.label(page.study.model))}</h2>")
        parts.append("<ol>" + "".join(f"<li>{html.escape(f.sentence)}</li>" for f in page.findings) + "</ol>")
        for title, head, body in page_tables(page):
            parts.append(f"<h3>{title}</h3>" + _html_table(head, body))
            if title == "Main table":
                parts.append(f'<p class="note">{html.escape(NOTE)}</p>')
    style = f'<meta charset="utf-8"><title>{HEADING}</title><style>{CSS}</style>'
    return f'<!doctype html><html lang="en"><head>{style}</head><body>' + "\n".join(parts) + "</body></html>\n"


def _html_table(head: list[str], body: list[list[str]]) -> str:
    colour = {"met": ' class="met"', "not met": ' class="not"'}
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = ["".join(f"<td{colour.get(cell, '')}>{html.escape(cell)}</td>" for cell in row) for row in body]
    return (
        f"<table><thead><tr>{top}</tr></thead><tbody>"
        + "".join(f"<tr>{line}</tr>" for line in lines)
        + "</tbody></table>"
    )


def to_terminal(findings: pd.DataFrame, main: pd.DataFrame) -> str:
    """Sentences and main table as plain text of a terminal, a column a run."""
    parts = []
    for model in dict.fromkeys(main["model"]):
        told = findings.loc[findings["model"] == model, "sentence"]
        parts += [textwrap.fill(f"{i}. {text}", 100, subsequent_indent="   ") for i, text in enumerate(told, 1)]
        mine = main[main["model"] == model]
        head, body = shown_table(mine)
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *body]
        ]
        parts += ["", f"Main table ({model})", lines[0], "-" * max(map(len, lines)), *lines[1:], ""]
    return "\n".join(parts)


def main(arguments: Sequence[str]) -> int:
    """Print the sentences and the main table of a results folder; 1 and one sentence where it has none."""
    try:
        if len(arguments) != 1:
            raise UserError("usage: python -m es2.findings RESULTS_DIR")
        tables = Path(arguments[0]) / "tables"
        missing = [name for name in ("findings.csv", "main.csv") if not (tables / name).exists()]
        if missing:
            raise UserError(f"{tables / missing[0]} is not there: run snakemake for this study first")
        print(to_terminal(pd.read_csv(tables / "findings.csv"), pd.read_csv(tables / "main.csv")))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
