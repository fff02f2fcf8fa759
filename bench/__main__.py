"""`python -m bench`: every path against its anchor; prints and saves results/bench/bench.csv."""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
import transformers
from threadpoolctl import threadpool_limits

from bench import extraction, generation, probes, steps
from bench.measure import COLUMNS, Comparison, UnequalError, measured
from bench.scene import FULL, LARGER, MODEL, QUICK, Scene, embedded, larger, scene, tiny
from es2.errors import UserError
from es2.files import write_csv, write_json

PARTS = {"extraction": extraction, "probes": probes, "es2_step": steps, "generation": generation}


def comparisons(made: Scene, paths: Iterable[str] = tuple(PARTS)) -> Iterator[Comparison]:
    """The rows of a scene, made one part after the other, so that only one part's models are in memory."""
    for path in paths:
        yield from PARTS[path].comparisons(made)


def scenes(options: argparse.Namespace, folder: Path) -> Iterator[Scene]:
    """The models that the options ask for, on the CPU and, where there is one, on a CUDA device."""
    sizes = QUICK if options.quick else FULL
    for device in options.devices or (("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)):
        if options.quick:
            yield scene("tiny", tiny(folder, device), sizes)
        else:
            yield scene(options.model.name, embedded(options.model, device), sizes)
        if options.larger:
            yield scene("qwen2.5_0.5b_random", larger(device), QUICK if options.quick else LARGER)


def table(made: Iterable[Scene], paths: Sequence[str]) -> pd.DataFrame:
    """All rows of the paths, each told as it is done."""
    rows = []
    for one in made:
        for comparison in comparisons(one, paths):
            row = measured(comparison, one.machine, one.name)
            rows.append(row)
            print(sentence(row), flush=True)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sentence(row: dict[str, float | str | None]) -> str:
    """One row for the terminal."""
    limit = "" if row["fraction_of_limit"] is None else f"  {row['fraction_of_limit']:.0%} of the limit"
    times = f"{row['ours_s']:.3g} s, anchor {row['anchor_s']:.3g} s"
    ratio = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    return f"{row['path']}/{row['anchor']} ({row['model']}, {row['device']}): {ratio}  ({times}){limit}"


def circumstances(options: argparse.Namespace) -> dict[str, object]:
    """What the times depend on beside the code."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sizes": vars(QUICK if options.quick else FULL),
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the converted model")
    parser.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), help="instead of all that there are")
    parser.add_argument("--paths", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="instead of all")
    parser.add_argument("--larger", action="store_true", help="also random weights in the shape of Qwen2.5-0.5B")
    parser.add_argument("--quick", action="store_true", help="a tiny random model in seconds: that all of it runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder for bench.csv")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save; 1 with one sentence if two sides of a row do not agree or the model is missing."""
    options = arguments(argv)
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)  # those of numpy and scikit-learn
    about = circumstances(options)
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = table(scenes(options, Path(folder)), options.paths)
    except (UnequalError, UserError) as error:
        print(error, file=sys.stderr)
        return 1
    write_csv(rows, options.out / "bench.csv")
    write_json(options.out / "bench.json", about)
    print(f"The table: {options.out / 'bench.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
