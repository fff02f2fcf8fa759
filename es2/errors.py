"""The one exception that a user's mistake raises, and how a full disk is told."""

import errno
import os

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """A mistake that the user can mend: its message is one sentence that says what, where and what to do."""


def is_disk_full(told: Exception | str) -> bool:
    """Whether an error, or what a program said, is of a disk without room: neither the code's fault nor the config's.

    Not every library raises OSError: the error of safetensors only says the system's words.
    """
    return getattr(told, "errno", None) in _DISK_FULL or any(os.strerror(code) in str(told) for code in _DISK_FULL)
