"""The one exception that a user's mistake raises, and what the system calls a full disk."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk without room, which is neither the code's fault nor the config's."""


class UserError(Exception):
    """A mistake that the user can mend: its message is one sentence that says what, where and what to do."""
