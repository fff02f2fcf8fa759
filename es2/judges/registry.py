"""The judges that a config may name, each resolved to the one module that it means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from es2.errors import UserError
from es2.judges.verdict import Verdict

# Each module has VERSION (rises when scores may change) and judge(prompt, answer) -> Verdict.
KINDS = {"keyword": "es2.judges.keyword"}


@dataclass(frozen=True)
class Judge:
    """A judge with its kind and version; `judge(prompt, answer)` gives the verdict on one answer."""

    kind: str
    version: str
    judge: Callable[[str, str], Verdict]


def load_judge(row: Mapping[str, Any]) -> Judge:
    """The judge of a config row `{kind: ...}`; UserError for an unknown kind or option."""
    kind = row.get("kind")
    if kind not in KINDS:
        raise UserError(f"judges: kind {kind!r} is unknown; known kinds are {', '.join(sorted(KINDS))}.")
    if extra := sorted(set(row) - {"kind"}):
        raise UserError(f"judges: {kind} takes no option {', '.join(extra)}; remove it.")
    module = import_module(KINDS[kind])
    return Judge(kind, module.VERSION, module.judge)
