"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake that the user can mend: its message is one sentence that says what, where and what to do."""
