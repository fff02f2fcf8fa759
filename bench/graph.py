"""`python -m bench.graph`: what the graph itself costs; prints and saves results/bench/graph.csv.

Snakemake is timed in a copy of the repository whose scripts only write their outputs; the start of a script, imports
included, by itself, and with the embedded model loaded. Columns what, seconds, detail.
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
from bench.scene import MODEL, tiny
from es2.files import write_csv
from es2.fingerprint import closure

COLUMNS = ("what", "seconds", "detail")
HEAVY = ("torch", "transformers", "peft")
LOADED = "generate_answers"  # the script that stands for those that load a model
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
    # The first once more: it also brings the libraries into the disk cache.
    times = {script.stem: _start(imports(script)) for script in [scripts[0], *scripts]}
    slowest = max(times, key=lambda name: times[name])
    return "script_start", times[slowest], slowest


def model_start(folder: Path, model: Path) -> Row:
    """The start of a script that loads a model, until it is loaded; the second time, from the disk cache."""
    lines = imports(folder / f"workflow/scripts/{LOADED}.py")
    load = ["from es2.models import load_model", f"load_model({str(model)!r})"]
    return "model_start", [_start([*lines, *load]) for _ in range(2)][-1], LOADED


def _start(lines: Sequence[str]) -> float:
    """Seconds of a process that runs these lines as a script of the graph begins."""
    command = [sys.executable, "-c", "\n".join(["from snakemake import script", *lines])]
    done, seconds = _timed(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
    assert done.returncode == 0, done.stderr[-2000:]
    return seconds


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


def table(quick: bool, model: Path) -> pd.DataFrame:
    """All rows; `quick` plans a small study, reruns the smoke study, and starts two scripts and a tiny random model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_repository(folder)
        light = light_scripts(folder)
        rows = [script_start(light[:2] if quick else light)]
        if quick:
            tiny(model := folder / "tiny", "cpu")
        rows.append(model_start(folder, model))
        stub_scripts(folder)
        rows.append(plan(folder, *((1, 2) if quick else (20, 40))))
        rows.append(no_change(folder, *(["config/smoke.yaml"] if quick else [])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m bench.graph", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small studies in seconds: that all of it runs")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the converted model")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder for graph.csv")
    options = parser.parse_args(argv)
    rows = table(options.quick, options.model.absolute())
    write_csv(rows, options.out / "graph.csv")
    print(rows.to_string(index=False, float_format="%.1f"))


if __name__ == "__main__":
    main()
