"""Whether a study comes out the same again: the smoke study twice, and once more with two threads a job.

    python -m tests.determinism [folder of an earlier call, whose finished studies are taken]

At the same seed and number of threads every file of the results must be equal byte for byte, but for what tells times
(cost.csv, its figure, the benchmark files), Snakemake's report, and two orders that libraries draw anew in each
process: of the entries in a safetensors header, and of `target_modules` in peft's adapter_config.json.

With another number of threads sums are formed in another order, so that weights and losses differ in their last digits,
and an answer may turn where two tokens were as good as equal. Then these must hold: losses and KL of training to LOSS,
shares of verdicts under the direct request to one answer. How far the attacks' shares are apart, which a search may
turn to another setting, is only said. It takes three times as long as `make smoke`.
"""

import json
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
TIMES = ("timings/", "tables/cost.csv", "figures/cost.", "report.html")
LOSS = 1e-4  # relative, and absolute below 1
SHARES = ["refusal", "compliance", "degenerate"]
CELL = ["run", "seed", "attack", "fitted_on", "setting", "budget", "factor", "benchmark", "split"]


def run_study(folder: Path, threads: int) -> Path:
    """Run the smoke study in a copy of the repository, unless it has run there; its results."""
    if not folder.exists():
        copy_repository(folder)
    (folder / "threads.yaml").write_text(f"threads: {threads}\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    arguments = ["--cores", "all", "--configfile", CONFIG, "threads.yaml"]
    subprocess.run([sys.executable, "-m", "snakemake", *arguments], cwd=folder, env=environment, check=True)
    return folder / RESULTS


def different_files(one: Path, two: Path) -> list[str]:
    """Files of two results that are not equal byte for byte, or stand in one alone; times do not count."""
    names = {str(path.relative_to(root)) for root in (one, two) for path in root.rglob("*") if path.is_file()}
    counted = sorted(name for name in names if not name.startswith(TIMES))
    return [name for name in counted if _content(one / name) != _content(two / name)]


def _content(path: Path) -> object:
    """What must be equal: the bytes, but for the two orders that libraries draw anew."""
    content = path.read_bytes() if path.is_file() else b""
    if path.suffix == ".safetensors" and content:
        end = 8 + int.from_bytes(content[:8], "little")
        return json.loads(content[8:end]), content[end:]
    if path.name == "adapter_config.json" and content:
        settings = json.loads(content)
        return settings | {"target_modules": sorted(settings.get("target_modules", []))}
    return content if path.is_file() else None


def different_losses(one: Path, two: Path) -> list[str]:
    """Columns of the training tables that differ by more than LOSS."""
    first, second = (pd.read_csv(root / "tables/training.csv") for root in (one, two))
    columns = [name for name in first.select_dtypes("number") if name in second]
    far = [name for name in columns if not np.allclose(first[name], second[name], rtol=LOSS, atol=LOSS, equal_nan=True)]
    return [f"training.csv: {name} differs by more than {LOSS:g}" for name in far]


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
    again = different_files(one, two)
    shares, most = different_shares(one, threaded)
    failures = [f"{name} is not the same again" for name in again] + different_losses(one, threaded) + shares
    turned = different_files(one, threaded)
    total = sum(path.is_file() for path in one.rglob("*"))
    print(*failures, sep="\n")
    print(f"{folder}: {total} files, {len(again)} not the same again. With two threads {len(turned)} are not the same,")
    print(f"and the shares of an attack are at most {most} answers apart.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
