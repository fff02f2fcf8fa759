"""Copies of the repository to run Snakemake in."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "config", "es2", "profiles", "workflow")


def copy_repository(folder: Path, *more: str) -> None:
    """Copy what a study needs into a folder, and the files or folders named besides."""
    for name in (*COPIED, *more):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
