"""Downloads from the Hugging Face hub; a failure is one sentence that names the config key."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import errors

from es2.errors import UserError, is_disk_full


def from_hub(key: str, row: Mapping[str, Any], download: Callable[..., str], **arguments: Any) -> Path:
    """The path that `download` of the hub's client returns.

    `row` is the config row at `key`: repo, revision and, where one file is asked for, file. Raises UserError, and
    OSError where the disk is full.
    """
    try:
        return Path(download(repo_id=row["repo"], revision=row["revision"], **arguments))
    except Exception as error:  # the client lets its network library's own errors through
        if is_disk_full(error):
            raise
        raise UserError(f"{key}{_failure(row, error)}.") from error


def _failure(row: Mapping[str, Any], error: Exception) -> str:
    """Say why the hub failed; the order matters: some errors are subclasses of others."""
    repo, file = row["repo"], row.get("file")
    if isinstance(error, errors.GatedRepoError):
        return f".repo: {repo} is gated: accept its terms on the hub and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f".repo: the hub has no {repo}, or it is private: check repo and repo_type"
    if isinstance(error, errors.RevisionNotFoundError):
        return f".revision: {repo} has no commit {row['revision'][:12]}: check it on the hub"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f": {repo} is not cached and the hub does not answer: check the network"
    if isinstance(error, errors.EntryNotFoundError):
        return f".file: {repo} has no file {file!r} at that commit: check its path"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    what = f"{file!r} of {repo}" if file else repo
    return f": {what} cannot be had from the hub: {reason}: run again, or check repo and revision"
