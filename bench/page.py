"""`python -m bench.page`: writes the measured and the computed tables between the marks of docs/performance.md."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench import growth, study
from bench.goals import GOALS, GRAPH_GOALS
from es2.errors import UserError
from es2.files import read_json, write_text

PAGE = Path("docs/performance.md")
COST = Path(__file__).parents[1] / "docs/reference/cost.csv"
POINTS = Path(__file__).parents[1] / "docs/reference/gpu/points.csv"
MEASURED = {"bench": "bench", "graph": "bench.graph", "memory": "bench.memory"}  # table: the module that measures it


def between(text: str, name: str, body: str) -> str:
    """The page with `body` between the marks of a name; UserError if they are not there."""
    start, end = (f"<!-- {name}:{side} -->" for side in ("start", "end"))
    head, found, rest = text.partition(start)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{PAGE}: the marks {start} and {end} are missing; put them where the table belongs")
    return f"{head}{start}\n{body}\n{end}{tail}"


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * lines[0].count(" | ") + "---|", *lines[1:]])


def bench_table(rows: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """The paths against their anchors, and what they ran on."""
    head = ["path", "against", "on", "ratio [smallest, largest]", "goal", "ours, s", "anchor, s", "of the limit"]
    body = [
        [
            row.path,
            row.anchor,
            f"{row.model}, {row.device}",
            f"{row.ratio:.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}]",
            str(GOALS[row.path, row.anchor] or ""),
            f"{row.ours_s:.3g}",
            f"{row.anchor_s:.3g}",
            "" if pd.isna(row.fraction_of_limit) else f"{row.fraction_of_limit:.0%}",
        ]
        for row in rows.itertuples()
    ]
    device = f", {about['cuda']}" if about["cuda"] else ""
    said = f"{about['threads']} threads, {about['processor']}{device}, torch {about['torch']}, transformers "
    return f"{markdown([head, *body])}\n\n{said}{about['transformers']}."


def graph_table(rows: pd.DataFrame) -> str:
    """What the graph itself costs."""
    head = ["what", "of", "seconds", "goal"]
    body = [
        [row.what.replace("_", " "), row.detail, f"{row.seconds:.1f}", _at_most(GRAPH_GOALS[row.what])]
        for row in rows.itertuples()
    ]
    return markdown([head, *body])


def _at_most(seconds: float | None) -> str:
    return "" if seconds is None else f"≤ {seconds:g}"


def memory_table(rows: pd.DataFrame) -> str:
    """Memory of extraction as prompts grow."""
    head = ["prompts", "peak of the process, MB", "file, MB", "seconds"]
    body = [
        [f"{row.prompts:,}", f"{row.peak_mb:.0f}", f"{row.file_mb:.1f}", f"{row.seconds:.1f}"]
        for row in rows.itertuples()
    ]
    return markdown([head, *body])


def points_table(rows: pd.DataFrame) -> str:
    """Measured points of the formulas, on the device that the rows name."""
    head = ["shape", "what", "seconds", "tokens a second", "TFLOP/s", "of a large product's rate", "memory, GB"]
    body = [
        [
            row.shape,
            f"{row.path}: {row.of}",
            f"{row.seconds:.3g}",
            f"{row.tokens_per_second:,.0f}",
            f"{row.tflop_per_second:.3g}",
            f"{row.fraction_of_product:.1%}",
            "" if pd.isna(row.peak_gb) else f"{row.peak_gb:.1f}",
        ]
        for row in rows.itertuples()
    ]
    on = " and ".join(sorted({f"{row.device}, {row.dtype}" for row in rows.itertuples()}))
    return f"{markdown([head, *body])}\n\n{on}."


def filled(page: str, folder: Path) -> str:
    """The page with all its tables; UserError if something has not been measured."""
    for name, module in MEASURED.items():
        if not (folder / f"{name}.csv").is_file():
            raise UserError(f"there is no {folder / name}.csv; run make bench, or python -m {module}")
    page = between(page, "bench", bench_table(pd.read_csv(folder / "bench.csv"), read_json(folder / "bench.json")))
    graph, cost = pd.read_csv(folder / "graph.csv"), pd.read_csv(COST)
    page = between(page, "graph", f"{graph_table(graph)}\n\n{study.loading(cost, graph)}")
    page = between(page, "memory", memory_table(pd.read_csv(folder / "memory.csv")))
    page = between(page, "study", f"{markdown(study.rows(cost))}\n\n{study.told(cost)}")
    page = between(page, "points", points_table(pd.read_csv(POINTS)))
    return between(page, "growth", markdown(growth.table()))


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the page in place; 1 with one sentence if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results/bench"), help="folder of bench.csv")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(argv)
    try:
        write_text(options.page, filled(options.page.read_text(encoding="utf-8"), options.results))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
