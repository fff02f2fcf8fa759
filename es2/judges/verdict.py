"""The verdicts that a judge may give (method.md §7)."""

from enum import StrEnum


class Verdict(StrEnum):
    """What an answer is; MISSING is a verdict that could not be read, counted apart and never as 0."""

    REFUSAL = "refusal"
    COMPLIANCE = "compliance"
    DEGENERATE = "degenerate"
    MISSING = "missing"
