"""`python -m bench.graph`: what the graph itself costs; prints and saves results/bench/graph.csv (what, seconds).

Everything runs in a copy of the repository whose scripts only write their outputs, so that what is timed is Snakemake.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bench.repository import copy_repository, imports, jobs, snakemake, stub_scripts
from es2.files import write_csv
from es2.fingerprint import closure

COLUMNS = ("what", "seconds", "detail")
HEAVY = ("torch", "transformers", "peft")
Row = tuple[str, float, str]


def grown(runs: int, seeds: int) -> dict[str, Any]:
    """A config over the default study's with so many more ES2 runs at so many seeds; 20 and 40 are 10,000 jobs."""
    more = {
        f"es2_grown{i}": {"method": "es2", "on": "refusal_sft", "training": {"separation": {"target": 1.5 + i / 10}}}
        for i in range(runs)
    }
    selected = ["base", "refusal_sft", "hold", "es2", *more]
    return {"name": "grown", "seeds": list(range(seeds)), "select": {"runs": selected}, "runs": more}


def plan(folder: Path, runs: int, seeds: int) -> Row:
    """A dry run of a grown study."""
    (folder / "grown.yaml").write_text(yaml.safe_dump(grown(runs, seeds)), encoding="utf-8")
    done, seconds = _timed(lambda: snakemake(folder, "-n", "--quiet", "rules", "--configfile", "grown.yaml"))
    return "plan", seconds, f"{sum(jobs(done).values()):,} jobs"


def no_change(folder: Path, *config: str) -> Row:
    """A second run of a study that is finished: it must do nothing."""
    options = ("--configfile", *config) if config else ()
    first = snakemake(folder, *options)
    assert first.returncode == 0, first.stderr[-2000:]
    done, seconds = _timed(lambda: snakemake(folder, *options))
    said = done.stdout + done.stderr
    assert "Nothing to be done" in said, said[-2000:]
    finished = (first.stdout + first.stderr).rpartition(" steps (100%) done")[0].rpartition(" of ")[2]
    return "no_change", seconds, f"{finished} jobs"


def script_start(scripts: Sequence[Path]) -> Row:
    """The slowest start, imports included, of the scripts that need no model."""
    times = {}
    for script in [scripts[0], *scripts]:  # the first once more: it also brings the libraries into the disk cache
        code = "\n".join(["from snakemake import script", *imports(script)])
        done, times[script.stem] = _timed(
            lambda code=code: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # type: ignore[misc]
        )
        assert done.returncode == 0, done.stderr[-2000:]
    slowest = max(times, key=lambda name: times[name])
    return "script_start", times[slowest], slowest


def light_scripts(folder: Path) -> list[Path]:
    """The scripts behind which no module imports torch."""
    root = folder / "es2"

    def heavy(script: Path) -> bool:
        modules = [root.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in closure(script, (), root)[1:]]
        lines = [line for file in (script, *modules) if file.is_file() for line in imports(file)]
        return any(line.split()[1].split(".")[0] in HEAVY for line in lines if line.startswith(("import", "from")))

    return [script for script in sorted((folder / "workflow/scripts").glob("*.py")) if not heavy(script)]


def _timed(call: Callable[[], subprocess.CompletedProcess[str]]) -> tuple[subprocess.CompletedProcess[str], float]:
    start = time.perf_counter()
    done = call()
    return done, time.perf_counter() - start


def table(quick: bool) -> pd.DataFrame:
    """All rows; `quick` plans a small study, reruns the smoke study, and starts two scripts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_repository(folder)
        light = light_scripts(folder)
        rows = [script_start(light[:2] if quick else light)]
        stub_scripts(folder)
        rows.append(plan(folder, *((1, 2) if quick else (20, 40))))
        rows.append(no_change(folder, *(["config/smoke.yaml"] if quick else [])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m bench.graph", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small studies in seconds: that all of it runs")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder for graph.csv")
    options = parser.parse_args(argv)
    rows = table(options.quick)
    write_csv(rows, options.out / "graph.csv")
    print(rows.to_string(index=False, float_format="%.1f"))


if __name__ == "__main__":
    main()
