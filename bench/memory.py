"""`python -m bench.memory`: how much memory extraction takes as prompts grow; saves results/bench/memory.csv.

On a tiny random model, so that what is seen is the prompts' share: its embeddings go to disk as they are made. Each
number of prompts has a process of its own, whose peak is read at its end (columns prompts, peak_mb, file_mb, seconds).
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.scene import bundled, tiny
from es2.embeddings import extract_pieces, save_embeddings
from es2.files import write_csv

COLUMNS = ("prompts", "peak_mb", "file_mb", "seconds")
PROMPTS, QUICK = (1_000, 10_000, 100_000), (50, 100)


def extraction(number: int, folder: Path) -> str:
    """Embed so many different prompts to a file: one line of the table, after the process's peak."""
    texts = bundled("plain_imperative", "look_dangerous")
    prompts = [f"{texts[place % len(texts)]} ({place})" for place in range(number)]
    lm = tiny(folder / "model", "cpu")
    file, start = folder / "embeddings.safetensors", time.perf_counter()
    save_embeddings(file, [str(place) for place in range(number)], extract_pieces(lm, prompts, 4096))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{number},{peak:.1f},{os.path.getsize(file) / 2**20:.1f},{seconds:.1f}"


def in_a_process(number: int) -> list[float]:
    """`extraction` in a process of its own."""
    command = [sys.executable, "-m", "bench.memory", "--one", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(value) for value in done.stdout.splitlines()[-1].split(",")]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few prompts: that it runs")
    parser.add_argument("--one", type=int, help="measure this number of prompts in this process")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder for memory.csv")
    options = parser.parse_args(argv)
    if options.one is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(extraction(options.one, Path(folder)))
        return
    rows = pd.DataFrame([in_a_process(number) for number in (QUICK if options.quick else PROMPTS)], columns=COLUMNS)
    rows = rows.astype({"prompts": int})
    write_csv(rows, options.out / "memory.csv")
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
