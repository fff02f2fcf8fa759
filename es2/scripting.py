"""What every script of the workflow runs in: its log, its threads, its record, and one sentence for a user's mistake.

It stands around a result and may not change one: see `AROUND` in es2.fingerprint.
"""

import ctypes
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from es2.errors import UserError, is_disk_full
from es2.records import recorded
from es2.threads import set_threads

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's names of these settings, from malloc.h


class Tee:
    """A text stream that writes to the terminal and to the log; of a progress bar the log gets the last state."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self._terminal, self._log, self._line = terminal, log, ""

    def write(self, text: str) -> int:
        """Pass `text` on; the log gets whole lines."""
        self._terminal.write(text)
        self._terminal.flush()
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._log.write(line.rpartition("\r")[2] + "\n")
        if lines:
            self._log.flush()
        self._line = self._line.rpartition("\r")[2] or self._line
        return len(text)

    def flush(self) -> None:
        """Flush the terminal; the log is flushed line by line."""
        self._terminal.flush()

    def finish(self) -> None:
        """Give the log what stands on an unfinished line."""
        if self._line:
            self._log.write(self._line + "\n")
        self._log.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._terminal, name)


@contextmanager
def job(snakemake: Any, owns: str | Path | None = None) -> Iterator[None]:
    """Run a script's body: stderr goes to the log and the terminal, threads as the rule says; then record the job.

    `owns` is a folder in which the body writes more than its outputs, for the record to hold as well (es2.records).
    A UserError, a full disk and a missing right end the job with one sentence on stderr and no traceback; of any other
    error the log and the terminal get the traceback.
    """
    set_threads(int(snakemake.threads))
    _keep_freed_memory()
    terminal = sys.stderr
    with open(snakemake.log[0], "w", encoding="utf-8") as log:
        tee = Tee(terminal, log)
        sys.stderr = tee
        try:
            with recorded(snakemake, owns):
                yield
        except Exception as error:
            if (sentence := _sentence(error, snakemake)) is None:
                traceback.print_exc()
            else:
                print(sentence, file=sys.stderr)
            sys.exit(1)
        finally:
            sys.stderr = terminal
            tee.finish()


def _sentence(error: Exception, snakemake: Any) -> str | None:
    """What to tell the user of a mistake that is not the code's."""
    if isinstance(error, UserError):
        return str(error)
    if is_disk_full(error):
        named = getattr(error, "filename", None)
        place = named or (snakemake.output[0] if len(snakemake.output) else "the working directory")
        return f"The disk that holds {place} is full: make room and run the same command again."
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: this user may not read or write it; give the right, and run the same command again."
    return None


def _keep_freed_memory() -> None:
    """Let glibc keep freed tensors for the next ones, rather than have the kernel clear fresh pages at every step.

    Large tensors are else mapped and unmapped each time, which costs training and generation about a twentieth.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
