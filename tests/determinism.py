"""Whether a study comes out the same again: the smoke study twice, and once more with two threads a job.

    python -m tests.determinism [folder of an earlier call, whose finished studies are taken]

Every file of the results must be equal byte for byte, but for what tells times (cost.csv, its figure, the benchmark
files, the records) and Snakemake's report. There is no tolerance for the number of threads: es2.threads asks MKL, with
which torch computes on x86, for sums in one order, which it promises for Intel's processors (others were not tried). It
takes three times as long as `make smoke`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.repository import copy_repository

CONFIG = "config/smoke.yaml"
RESULTS = "results/smoke"
TIMES = ("timings/", "provenance/", "tables/cost.csv", "figures/cost.", "report.html")


def run_study(folder: Path, threads: int) -> Path:
    """Run the smoke study in a copy of the repository, unless it has run there; its results."""
    if not folder.exists():
        copy_repository(folder)
    (folder / "laid.yaml").write_text(f"threads: {threads}\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    arguments = ["--cores", "all", "--configfile", CONFIG, "laid.yaml"]
    subprocess.run([sys.executable, "-m", "snakemake", *arguments], cwd=folder, env=environment, check=True)
    return folder / RESULTS


def different_files(one: Path, two: Path) -> list[str]:
    """Files of two results that are not equal byte for byte, or stand in one alone; times do not count."""
    names = {str(path.relative_to(root)) for root in (one, two) for path in root.rglob("*") if path.is_file()}
    counted = sorted(name for name in names if not name.startswith(TIMES))
    return [name for name in counted if _bytes(one / name) != _bytes(two / name)]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main(arguments: list[str]) -> int:
    """0 if the study comes out the same again."""
    folder = Path(arguments[0] if arguments else tempfile.mkdtemp(prefix="es2-determinism-"))
    one, two, threaded = (run_study(folder / name, n) for name, n in (("one", 1), ("two", 1), ("threaded", 2)))
    again, turned = different_files(one, two), different_files(one, threaded)
    total = sum(path.is_file() for path in one.rglob("*"))
    for name in again:
        print(f"{name} is not the same again")
    for name in turned:
        print(f"{name} is another one with two threads")
    print(f"{folder}: {total} files, {len(again)} not the same again, {len(turned)} not the same with two threads.")
    return 1 if again or turned else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
