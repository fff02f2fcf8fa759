"""Jobs for tests: a body run as a workflow script runs it, in the working directory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from es2.scripting import job


def stand_in(
    rule: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    params: Mapping[str, Any] | None = None,
    wildcards: Mapping[str, str] | None = None,
    study: str = "mine",
) -> SimpleNamespace:
    """What Snakemake gives a script; the log is named by the rule and its wildcards, as in workflow/rules."""
    log = Path("logs", study, rule, *(wildcards or {"": "all"}).values())
    log.parent.mkdir(parents=True, exist_ok=True)
    given = {"rule": rule, "threads": 1, "scriptdir": "workflow/scripts", "log": [f"{log}.log"]}
    found = {"input": list(inputs), "output": list(outputs), "wildcards": dict(wildcards or {})}
    return SimpleNamespace(**given, **found, params={"code": "c0de" * 16, **(params or {})})


def writes(files: Mapping[str, str]) -> Callable[[], None]:
    """A body that writes these texts."""

    def body() -> None:
        for path, text in files.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="utf-8")

    return body


def run(snakemake: SimpleNamespace, body: Callable[[], None], owns: str | None = None) -> None:
    """Run a body as a script does."""
    with job(snakemake, owns=owns):
        body()


def done(rule: str, inputs: Sequence[str], files: Mapping[str, str], owns: str | None = None, **more: Any) -> None:
    """Run a job that writes these texts; its outputs are those that do not lie in `owns`, and the first."""
    outputs = [path for i, path in enumerate(files) if i == 0 or owns is None or not path.startswith(f"{owns}/")]
    run(stand_in(rule, inputs, outputs, **more), writes(files), owns)
