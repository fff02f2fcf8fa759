"""How a judge agrees with human labels: `make calibrate DATA=folder` (method.md section 7).

`make calibrate DATA=folder JUDGE=name` takes a judge of the config instead of the keyword judge. `PROMPTS=n` draws n
prompts and judges every model's answers to them: a model that judges takes seconds for an answer. For a judge that goes
by odds it also says which threshold the labels ask for, and how well one does that was set on the other models' labels.

The labels are those of XSTest (Roettger et al. 2024, arXiv:2308.01263): 450 prompts, five chat models' completions,
each labelled full compliance, full refusal or partial refusal by two people. A partial refusal counts as the mapping
says; a degenerate verdict disagrees with every label.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from es2.config import read_files
from es2.errors import UserError
from es2.files import write_csv
from es2.judges.degenerate import is_degenerate
from es2.judges.registry import Judge, load_judge
from es2.judges.rubric import by_odds
from es2.judges.verdict import Verdict
from es2.kappa import kappa, kappas
from es2.settings.checks.names import need
from es2.thresholds import best_threshold, held_out

USAGE = "make calibrate DATA=folder [JUDGE=name CONFIG=file] [PROMPTS=n]"
LABELS = {"1_full_compliance": "compliance", "2_full_refusal": "refusal", "3_partial_refusal": "partial"}
MAPPINGS = {"partial is refusal": "refusal", "partial is compliance": "compliance", "partial left out": ""}
COLUMNS = ("prompt", "completion", "final_label")
POOLED = "pooled"
HARDEST = 3  # of the source models: what the judge is worth on the three that it agrees with least
AGREEMENT = ["judge", "version", "source_model", "mapping", "n", "accuracy", "kappa", "kappa_low", "kappa_high"]
CONFUSION = ["source_model", "label", "verdict", "n"]


def judged(tables: Mapping[str, pd.DataFrame], judge: Judge) -> pd.DataFrame:
    """Every completion with its label and verdict: columns source_model, prompt, label, verdict, and the `odds` of a
    judge that goes by them (of degenerate answers too, though it is not asked about them in a study).

    tables: {source model: frame with the columns prompt, completion, final_label}.
    """
    parts = [table.assign(source_model=name, label=table["final_label"].map(LABELS)) for name, table in tables.items()]
    every = pd.concat(parts, ignore_index=True)
    pairs = list(zip(every["prompt"], every["completion"], strict=True))
    kept = every[["source_model", "prompt", "label"]]
    if judge.odds_all is not None:
        odds = judge.odds_all(pairs)
        flagged = [is_degenerate(*pair) for pair in pairs]
        verdicts = zip(flagged, by_odds(odds, judge.threshold), strict=True)
        said = [str(Verdict.DEGENERATE if broken else verdict) for broken, verdict in verdicts]
        return kept.assign(verdict=said, odds=odds)
    return kept.assign(verdict=[str(verdict) for verdict in judge.judge_all(pairs)])


def agreement(found: pd.DataFrame, judge: Judge, seed: int = 0) -> pd.DataFrame:
    """Accuracy and Cohen's kappa of every source model, of all pooled, and of the three whose pooled kappa is least
    (names joined by " + "): no three that a judge was not tuned on can fare worse. Under every mapping of partial
    refusals.

    The interval of kappa is a bootstrap over prompts: one prompt's completions stay together. Verdicts that are missing
    are left out, `n` too; `confusion` counts them.
    """
    found = found[found["verdict"] != Verdict.MISSING]
    rows: list[dict[str, Any]] = []
    for mapping, meaning in MAPPINGS.items():
        label = found["label"].replace("partial", meaning)
        cells = found.assign(label=label)[label != ""]
        groups = [*cells.groupby("source_model", sort=False), (POOLED, cells), *_hardest(cells)]
        for name, cell in groups:
            value, low, high = kappas(cell, seed)
            told = {"n": len(cell), "accuracy": float((cell["label"] == cell["verdict"]).mean())}
            about = {"judge": judge.kind, "version": judge.version, "source_model": name, "mapping": mapping}
            rows.append(about | told | {"kappa": value, "kappa_low": low, "kappa_high": high})
    return pd.DataFrame(rows, columns=AGREEMENT)


def _hardest(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The source models of the least pooled kappa, if there are more than `HARDEST`, with their answers."""
    names = list(dict.fromkeys(cells["source_model"]))
    if len(names) <= HARDEST:
        return []
    some = [cells[cells["source_model"].isin(chosen)] for chosen in combinations(names, HARDEST)]
    least = min(some, key=kappa)
    return [(" + ".join(dict.fromkeys(least["source_model"])), least)]


def confusion(found: pd.DataFrame) -> pd.DataFrame:
    """How often each label met each verdict, for every source model."""
    return found.groupby(["source_model", "label", "verdict"], sort=False).size().rename("n").reset_index()[CONFUSION]


def drawn(tables: Mapping[str, pd.DataFrame], n_prompts: int, seed: int = 0) -> dict[str, pd.DataFrame]:
    """The completions of `n_prompts` prompts, drawn among those that every source model has answered."""
    common = sorted(set.intersection(*(set(table["prompt"]) for table in tables.values())))
    if n_prompts > len(common):
        raise UserError(
            f"calibration: PROMPTS={n_prompts} is more than the {len(common)} prompts that all have answered"
        )
    chosen = set(np.random.default_rng(seed).choice(common, n_prompts, replace=False))
    return {name: table[table["prompt"].isin(chosen)] for name, table in tables.items()}


def chosen_judge(name: str, files: Sequence[str]) -> Judge:
    """The judge `name` of the config that `files`, laid over each other, make; a model of the catalogue that it asks is
    one that the study has made."""
    study = read_files(files)
    need("calibration", "judge", name, study.config.judges)
    row, model = study.config.judges[name].model_dump(), study.judging(name)
    if model is None:
        return load_judge(row)
    manifest = f"resources/models/{model}/manifest.json"
    if not Path(manifest).is_file():
        raise UserError(
            f"calibration: the judge {name} asks the model {model}, which is not made yet: run `snakemake --cores all "
            f"{manifest} --configfile` with the config file that names it"
        )
    return load_judge(row, {"manifest": manifest, **study.config.models[model].model_dump()})


def read_completions(folder: Path) -> dict[str, pd.DataFrame]:
    """XSTest's completion files in a folder: {source model: frame}."""
    files = sorted(folder.glob("*completions*.csv"))
    if not files:
        raise UserError(f"calibration: {folder} holds no file named *completions*.csv; give XSTest's completion files")
    tables = {file.stem.rpartition("_")[2]: pd.read_csv(file, keep_default_na=False) for file in files}
    for name, table in tables.items():
        if missing := [column for column in COLUMNS if column not in table]:
            raise UserError(f"calibration: {name} has no column {missing[0]}; give XSTest's completion files")
        if strange := sorted(set(table["final_label"]) - set(LABELS)):
            raise UserError(f"calibration: {name} has the label {strange[0]!r}; known are {', '.join(LABELS)}")
    return tables


def main(arguments: Sequence[str]) -> None:
    """Judge the completions of a folder, write `agreement.csv` and `confusion.csv`, print what was found.

    arguments: the folder, the folder to write to; of another judge than the keyword judge, its name and the config
    files that have it; and `--prompts n`.
    """
    asked = _asked(arguments)
    judge = chosen_judge(asked.judge, asked.configs) if asked.judge else load_judge({"kind": "keyword"})
    tables = read_completions(asked.data)
    found = judged(tables if asked.prompts is None else drawn(tables, asked.prompts), judge)
    if missing := int((found["verdict"] == Verdict.MISSING).sum()):
        print(f"could not be read, of {len(found)} verdicts: {missing}")
    if missing == len(found):
        raise UserError("calibration: no verdict of this judge could be read; give it more tokens, or ask another")
    table = agreement(found, judge)
    write_csv(table, asked.out / "agreement.csv")
    write_csv(confusion(found), asked.out / "confusion.csv")
    flagged = (found["verdict"] == "degenerate").mean()
    print(table.round(3).to_string(index=False))
    print(f"called degenerate, of {len(found)} real answers: {flagged:.4f}")
    if "odds" in found and found["source_model"].nunique() > 1:
        _tell_thresholds(found, judge, asked.out)


def _tell_thresholds(found: pd.DataFrame, judge: Judge, out: Path) -> None:
    """Say which threshold these labels ask for, and what one that others' labels set is worth on each source model."""
    best = best_threshold(found["odds"].to_numpy(), (found["label"] == "compliance").to_numpy())
    crossed = held_out(found)
    table = agreement(crossed, judge)
    write_csv(table, out / "agreement_held_out.csv")
    print(f"The threshold that agrees best with all these labels: {best:.3f} (the config has {judge.threshold:g}).")
    print("Each source model at the threshold that is best on all others:")
    print(table.round(3).to_string(index=False))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as every other part of es2 does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"calibration: {message}; say `{USAGE}`, a folder with XSTest's completion files (CSV)")


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="es2.calibration")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("judge", nargs="?")
    parser.add_argument("configs", nargs="*")
    parser.add_argument("--prompts", type=int)
    found = parser.parse_args(arguments)
    if found.judge and not found.configs:
        parser.error(f"the judge {found.judge} stands alone, and its config files are missing")
    if found.prompts is not None and found.prompts < 1:
        parser.error(f"PROMPTS={found.prompts} is no number of prompts")
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
