"""A copy of the repository in which Snakemake runs, and its scripts reduced to their imports."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "config", "es2", "profiles", "workflow")
STUB = """
from pathlib import Path
from es2.scripting import job
with job(snakemake):
    for path in snakemake.output:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(path)
"""


def copy_repository(folder: Path, *more: str) -> None:
    """Copy everything that the graph is made of into a folder, and the files or folders named besides."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*COPIED, *more):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def imports(script: Path) -> list[str]:
    """The lines of a script's import statements."""
    text = script.read_text(encoding="utf-8")
    found = re.findall(r"^(?:import|from) .+?(?:\n(?=\S)|\)$|$)", text, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines()]


def stub_scripts(folder: Path) -> None:
    """Let every script of a copy only write its outputs; its imports stay in sight of the graph, unexecuted."""
    for script in (folder / "workflow/scripts").glob("*.py"):
        script.write_text("if False:\n" + "".join(f"    {line}\n" for line in imports(script)) + STUB)


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a folder, with the es2 that lies there."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def jobs(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Number of jobs by rule in what a dry run says."""
    assert done.returncode == 0, done.stderr[-2000:]
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("total ")[0]
    return Counter({name: int(count) for name, count in re.findall(r"^(\w[\w.]*) +(\d+)$", table, re.MULTILINE)})
