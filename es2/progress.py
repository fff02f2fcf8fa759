"""Progress on stderr: a bar with the time left on a terminal, a line now and then in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts `total` things done."""
    interval = 1 if sys.stderr.isatty() else 30
    with tqdm(total=total, desc=what, file=sys.stderr, mininterval=interval) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        yield advance
