"""The record of a finished job: what made its files, with the hashes of all that it read and wrote.

One JSON file a job: `results/<study>/provenance/<rule>/<job>.json`, or `resources/provenance/...` where the job's files
are shared by all studies. Records are no outputs of Snakemake's: they make no job run. Paths are relative to the
working directory. es2.provenance reads them. Torch-free.

Keys: rule, wildcards, params (the job's settings as Snakemake passed them, without secrets), code (es2.fingerprint),
seed, script, inputs, outputs, beside (files that it wrote besides its outputs), versions, commit, machine, threads,
started, finished. Files are {path: {sha256, bytes}}.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from es2.files import sha256_file, write_json
from es2.makers import check_unchanged, read_makers

FOLDER = "provenance"
MADE = ("results", "resources")
"""Folders of what jobs make."""
VERSIONS = ("torch", "transformers", "peft", "tokenizers", "numpy", "pandas", "scikit-learn", "lm-eval", "snakemake")
_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|KEY)S?(_|$)", re.IGNORECASE)
_LEAST_SECRET = 8  # characters; a shorter value may stand in any text by chance
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")

Files = dict[str, dict[str, Any]]


@contextmanager
def recorded(snakemake: Any, owns: str | Path | None = None) -> Iterator[None]:
    """Record the job whose body runs in the block; a job that fails has no record.

    snakemake: the object that a script gets. owns: a folder whose new files the job made, beyond its declared outputs.
    Inputs are hashed before the body, for that is what it reads. Raises UserError if one of them is not as the job that
    made it left it: a truncated file may else be read without a word.
    """
    path = record_path(snakemake.output[0], snakemake.log[0])
    path.unlink(missing_ok=True)
    started, inputs, before = _now(), hashes(snakemake.input), _stamps(owns)
    check_unchanged(inputs, read_makers({Path(home(file), FOLDER) for file in inputs if Path(file).parts[0] in MADE}))
    yield
    outputs = hashes(snakemake.output)
    made = [file for file, stamp in _stamps(owns).items() if before.get(file) != stamp and file not in outputs]
    files = {"inputs": inputs, "outputs": outputs, "beside": hashes(made)}
    write_json(path, {**_job(snakemake), **files, **_surroundings(), "started": started, "finished": _now()})


def record_path(output: str, log: str) -> Path:
    """Where the record of a job stands: with the study, or the shared files, that its first output belongs to.

    Below that it is named as the job's log is, whose path Snakemake holds to be unique.
    """
    folder = Path(relative(log))
    own = folder.parts[2:] if folder.parts[0] == "logs" and len(folder.parts) > 2 else (folder.name,)
    return Path(home(relative(output)), FOLDER, *own).with_suffix(".json")


def home(path: str) -> str:
    """The folder that a file of the working directory belongs to: results/<study>, or the first one of its path."""
    parts = Path(path).parts
    return str(Path(*parts[: 2 if parts[0] == "results" else 1][: len(parts) - 1]))


def relative(path: str | Path) -> str:
    """A path as it is from the working directory."""
    return Path(os.path.relpath(path)).as_posix()


def hashes(paths: Iterable[str | Path]) -> Files:
    """{path: SHA-256 and size in bytes} of files."""
    return {relative(path): {"sha256": sha256_file(path), "bytes": os.path.getsize(path)} for path in paths}


def plain(value: Any, secrets: Iterable[str] = ()) -> Any:
    """A parameter in JSON's types, without `secrets` and without the user's part of an address."""
    if isinstance(value, dict):
        return {str(key): plain(entry, secrets) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry, secrets) for entry in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    for secret in secrets:
        text = text.replace(secret, "***")
    return _CREDENTIALS.sub("***@", text)


def _job(snakemake: Any) -> dict[str, Any]:
    """Which job it is, with its settings."""
    secrets = [text for name, text in os.environ.items() if _SECRET.search(name) and len(text) >= _LEAST_SECRET]
    params = plain(dict(snakemake.params.items()), secrets)
    wildcards = plain(dict(snakemake.wildcards.items()))
    seed = params.get("seed", params.get("row", {}).get("seed", wildcards.get("seed")))
    script = Path(snakemake.scriptdir, f"{snakemake.rule}.py")
    return {
        "rule": snakemake.rule,
        "wildcards": wildcards,
        "code": params.pop("code", None),
        "seed": seed,
        "params": params,
        "script": hashes([script]) if script.is_file() else {},
        "threads": int(snakemake.threads),
    }


def _surroundings() -> dict[str, Any]:
    """The software and the machine."""
    versions = {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS}
    machine = {"platform": platform.platform(), "cpu": _cpu(), "gpu": _gpu()}
    return {"versions": versions, "commit": _commit(Path(__file__).parents[1]), "machine": machine}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of es2's own repository, with "-dirty" where tracked files differ from it; None outside of one."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def _gpu() -> str | None:
    """The GPU that the job computed on, if any."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_initialized() else None


def _stamps(folder: str | Path | None) -> dict[str, tuple[int, int]]:
    """{path: time of change and size} of the files in a folder."""
    found = sorted(Path(folder).iterdir()) if folder is not None and Path(folder).is_dir() else []
    return {relative(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in found if file.is_file()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
