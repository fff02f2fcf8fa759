"""How a judge agrees with human labels: `make calibrate DATA=folder` (method.md section 7).

`make calibrate DATA=folder JUDGE=name` takes a judge of the config instead of the keyword judge, where it needs no job
of the study: one behind an endpoint, or of judgezoo.

The labels are those of XSTest (Roettger et al. 2024, arXiv:2308.01263): 450 prompts, five chat models' completions,
each labelled full compliance, full refusal or partial refusal by two people. A partial refusal counts as the mapping
says; a degenerate verdict disagrees with every label.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from es2.config import read_files
from es2.errors import UserError
from es2.files import write_csv
from es2.judges.registry import Judge, load_judge
from es2.judges.verdict import Verdict
from es2.kappa import kappas
from es2.settings.checks.names import need

LABELS = {"1_full_compliance": "compliance", "2_full_refusal": "refusal", "3_partial_refusal": "partial"}
MAPPINGS = {"partial is refusal": "refusal", "partial is compliance": "compliance", "partial left out": ""}
COLUMNS = ("prompt", "completion", "final_label")
POOLED = "pooled"
AGREEMENT = ["judge", "version", "source_model", "mapping", "n", "accuracy", "kappa", "kappa_low", "kappa_high"]
CONFUSION = ["source_model", "label", "verdict", "n"]


def judged(tables: Mapping[str, pd.DataFrame], judge: Judge) -> pd.DataFrame:
    """Every completion with its label and verdict: columns source_model, prompt, label, verdict.

    tables: {source model: frame with the columns prompt, completion, final_label}.
    """
    parts = []
    for name, table in tables.items():
        if missing := [column for column in COLUMNS if column not in table]:
            raise UserError(f"calibration: {name} has no column {missing[0]}; give XSTest's completion files")
        if strange := sorted(set(table["final_label"]) - set(LABELS)):
            raise UserError(f"calibration: {name} has the label {strange[0]!r}; known are {', '.join(LABELS)}")
        pairs = list(zip(table["prompt"], table["completion"], strict=True))
        verdicts = [str(verdict) for verdict in judge.judge_all(pairs)]
        labels = [LABELS[label] for label in table["final_label"]]
        parts.append(
            pd.DataFrame({"source_model": name, "prompt": table["prompt"], "label": labels, "verdict": verdicts})
        )
    return pd.concat(parts, ignore_index=True)


def agreement(found: pd.DataFrame, judge: Judge, seed: int = 0) -> pd.DataFrame:
    """Accuracy and Cohen's kappa of every source model and of all pooled, under every mapping of partial refusals.

    The interval of kappa is a bootstrap over prompts: one prompt's completions stay together. Verdicts that are missing
    are left out, `n` too; `confusion` counts them.
    """
    found = found[found["verdict"] != Verdict.MISSING]
    rows: list[dict[str, Any]] = []
    for mapping, meaning in MAPPINGS.items():
        label = found["label"].replace("partial", meaning)
        cells = found.assign(label=label)[label != ""]
        groups = [*cells.groupby("source_model", sort=False), (POOLED, cells)]
        for name, cell in groups:
            kappa, low, high = kappas(cell, seed)
            told = {"n": len(cell), "accuracy": float((cell["label"] == cell["verdict"]).mean())}
            about = {"judge": judge.kind, "version": judge.version, "source_model": name, "mapping": mapping}
            rows.append(about | told | {"kappa": kappa, "kappa_low": low, "kappa_high": high})
    return pd.DataFrame(rows, columns=AGREEMENT)


def confusion(found: pd.DataFrame) -> pd.DataFrame:
    """How often each label met each verdict, for every source model."""
    return found.groupby(["source_model", "label", "verdict"], sort=False).size().rename("n").reset_index()[CONFUSION]


def chosen_judge(name: str, files: Sequence[str]) -> Judge:
    """The judge `name` of the config that `files`, laid over each other, make; it asks no model of the catalogue."""
    study = read_files(files)
    need("calibration", "judge", name, study.config.judges)
    if (model := study.judging(name)) is not None:
        raise UserError(
            f"calibration: the judge {name} asks the model {model}, which only a job of the study loads; "
            "give the judge an endpoint"
        )
    return load_judge(study.config.judges[name].model_dump())


def main(arguments: Sequence[str]) -> None:
    """Read the completion files of a folder, write `agreement.csv` and `confusion.csv`, print what was found.

    arguments: the folder, the folder to write to, and, of another judge than the keyword judge, its name and the config
    files that have it.
    """
    if len(arguments) < 2 or len(arguments) == 3:
        raise UserError("calibration: say `make calibrate DATA=folder`, a folder with XSTest's completion files (CSV)")
    folder, out = Path(arguments[0]), Path(arguments[1])
    judge = chosen_judge(arguments[2], arguments[3:]) if arguments[2:] else load_judge({"kind": "keyword"})
    files = sorted(folder.glob("*completions*.csv"))
    if not files:
        raise UserError(f"calibration: {folder} holds no file named *completions*.csv; give XSTest's completion files")
    tables = {file.stem.rpartition("_")[2]: pd.read_csv(file, keep_default_na=False) for file in files}
    found = judged(tables, judge)
    if missing := int((found["verdict"] == Verdict.MISSING).sum()):
        print(f"could not be read, of {len(found)} verdicts: {missing}")
    if missing == len(found):
        raise UserError("calibration: no verdict of this judge could be read; give it more tokens, or ask another")
    table = agreement(found, judge)
    write_csv(table, out / "agreement.csv")
    write_csv(confusion(found), out / "confusion.csv")
    flagged = (found["verdict"] == "degenerate").mean()
    print(table.round(3).to_string(index=False))
    print(f"called degenerate, of {len(found)} real answers: {flagged:.4f}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
