"""Python loads this by itself where its folder stands on PYTHONPATH: each job of a study then leaves a record.

A record says which modules of es2 a script had loaded at its end, which files of the working directory Python opened
for it, and what Snakemake gave it. Files that a library opens without Python (safetensors, Parquet) are not seen.
"""

import atexit
import json
import os
import sys

WHERE = os.environ.get("ES2_TRACE")
ROOT = os.path.realpath(os.curdir)
OPENED: set[str] = set()


def _note(event: str, arguments: tuple) -> None:
    """Keep the path of an opened file; nothing here may open one."""
    if event == "open" and isinstance(arguments[0], str):
        OPENED.add(os.path.join(ROOT, arguments[0]))


def _plain(job: object) -> dict:
    """Snakemake's own of a job, as plain values."""
    return {
        "rule": job.rule,
        "output": [str(path) for path in job.output],
        "input": [str(path) for path in job.input],
        "log": [str(path) for path in job.log],
        "params": dict(job.params.items()),
    }


def _write() -> None:
    job = getattr(sys.modules.get("__main__"), "snakemake", None)
    if not hasattr(job, "rule"):
        return
    opened = sorted(os.path.relpath(path, ROOT) for path in OPENED.copy() if path.startswith(ROOT + os.sep))
    modules = sorted(name for name in sys.modules if name.partition(".")[0] == "es2")
    record = {**_plain(job), "modules": modules, "opened": opened}
    with open(os.path.join(WHERE, f"{os.getpid()}.{job.rule}.json"), "w", encoding="utf-8") as stream:
        json.dump(record, stream, default=str)


if WHERE:
    sys.addaudithook(_note)
    atexit.register(_write)
