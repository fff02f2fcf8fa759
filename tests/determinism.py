"""Whether a study comes out the same again: the smoke study twice, once more with two threads a job, and its trainings
at another seed.

    python -m tests.determinism [folder of an earlier call, whose finished studies are taken]

At the same seed and number of threads every file of the results must be equal byte for byte, but for what tells times
(cost.csv, its figure, the benchmark files, the records) and Snakemake's report.

With another number of threads sums are formed in another order, so that weights and losses differ in their last digits,
and an answer may turn where two tokens were as good as equal. Then these must hold: losses and KL of a step to LOSS;
what is measured on the trained model's states, since the optimizer divides each gradient by its own size and so takes
rounding for a full step wherever a gradient is nearly zero, to SHARE of what another seed changes; shares of verdicts
under the direct request to one answer. How far the attacks' shares are apart, which a search may turn to another
setting, is only said. It takes three times as long as `make smoke`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from bench.repository import copy_repository

CONFIG = "config/smoke.yaml"
RESULTS = "results/smoke"
TRAINING = "tables/training.csv"
TIMES = ("timings/", "provenance/", "tables/cost.csv", "figures/cost.", "report.html")
LOSS = 1e-4  # relative, and absolute below 1
SHARE = 0.1  # a part of the study's own scatter that no interval over seeds can show
STATES = ["drift", "distance_ratio", "norm_ratio", "kl_heldout"]
SHARES = ["refusal", "compliance", "degenerate"]
CELL = ["run", "seed", "attack", "fitted_on", "setting", "budget", "factor", "benchmark", "split"]


def run_study(folder: Path, threads: int, seed: int = 0, target: str = "all") -> Path:
    """Run the smoke study, or a part, in a copy of the repository, unless it has run there; its results."""
    if not folder.exists():
        copy_repository(folder)
    (folder / "laid.yaml").write_text(f"threads: {threads}\nseeds: [{seed}]\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    arguments = ["--cores", "all", "--configfile", CONFIG, "laid.yaml", "--", target]
    subprocess.run([sys.executable, "-m", "snakemake", *arguments], cwd=folder, env=environment, check=True)
    return folder / RESULTS


def different_files(one: Path, two: Path) -> list[str]:
    """Files of two results that are not equal byte for byte, or stand in one alone; times do not count."""
    names = {str(path.relative_to(root)) for root in (one, two) for path in root.rglob("*") if path.is_file()}
    counted = sorted(name for name in names if not name.startswith(TIMES))
    return [name for name in counted if _bytes(one / name) != _bytes(two / name)]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def different_losses(one: Path, two: Path, reseeded: Path) -> list[str]:
    """Columns of the training tables that differ too much: by LOSS, or for STATES by SHARE of what the seed changes."""
    first, second, other = (pd.read_csv(root / TRAINING).set_index(["run", "step"]) for root in (one, two, reseeded))
    failures = []
    for name in first.select_dtypes("number"):
        apart = (first[name] - second[name]).abs()
        allowed = LOSS * first[name].abs().clip(lower=1)
        if name in STATES:
            allowed = allowed.clip(lower=SHARE * (first[name] - other[name]).abs().max())
        if (first[name].isna() != second[name].isna()).any() or (apart > allowed).any():
            failures.append(f"training.csv: {name} differs by {apart.max():.2g}, where {allowed.min():.2g} is allowed")
    return failures


def different_shares(one: Path, two: Path) -> tuple[list[str], int]:
    """Cells under the direct request whose shares differ by more than one answer; and the most of any attack."""
    first, second = (pd.read_csv(root / "tables/dsr.csv", keep_default_na=False) for root in (one, two))
    both = first.merge(second, on=CELL, how="outer", suffixes=("", "_2"), indicator=True)
    paired = both[both["_merge"] == "both"]
    apart = np.stack([(paired[name] - paired[f"{name}_2"]).abs() * paired["n"] for name in SHARES]).max(0).round()
    direct = paired["attack"] == "direct"
    wrong = paired[direct & (apart > 1)][CELL].itertuples(index=False)
    return [f"dsr.csv: {' '.join(map(str, cell))} is more than one answer apart" for cell in wrong], int(
        apart.max(initial=0)
    )


def main(arguments: list[str]) -> int:
    """0 if the study comes out the same again."""
    folder = Path(arguments[0] if arguments else tempfile.mkdtemp(prefix="es2-determinism-"))
    one, two, threaded = (run_study(folder / name, n) for name, n in (("one", 1), ("two", 1), ("threaded", 2)))
    reseeded = run_study(folder / "reseeded", 1, seed=1, target=f"{RESULTS}/{TRAINING}")
    again = different_files(one, two)
    shares, most = different_shares(one, threaded)
    failures = [f"{name} is not the same again" for name in again] + different_losses(one, threaded, reseeded) + shares
    turned = different_files(one, threaded)
    total = sum(path.is_file() for path in one.rglob("*"))
    print(*failures, sep="\n")
    print(f"{folder}: {total} files, {len(again)} not the same again. With two threads {len(turned)} are not the same,")
    print(f"and the shares of an attack are at most {most} answers apart.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
