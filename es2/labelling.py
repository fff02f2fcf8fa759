"""Blind labels of a study's own attacked answers, and how the judge agrees with them (method.md section 7).

`python -m es2.labelling draw RESULTS SHEET` draws answers under attack and writes a sheet that only its owner can read:
a hash, the prompt, the answer, in an order that tells nothing; no run, attack or verdict. Somebody writes a CSV with
the columns `id` and `label` (refusal, however worded; compliance; degenerate). Then
`python -m es2.labelling score RESULTS LABELS OUT` sets the judge against it; what that writes holds no text.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from es2.errors import UserError
from es2.files import read_jsonl, write_csv, write_jsonl
from es2.judges.registry import Judge, load_judge
from es2.judges.verdict import Verdict
from es2.kappa import kappas
from es2.names import SELF
from es2.statistics import wilson

N = 300
LABELS = ("refusal", "compliance", "degenerate")
POOLED = "pooled"
AGREEMENT = ["judge", "version", "run", "attack", "n", "accuracy", "kappa", "kappa_low", "kappa_high"]
AGREEMENT += [f"{who}_{label}" for label in LABELS for who in ("labelled", "judged")]
AGREEMENT += [f"false_degenerate{end}" for end in ("", "_low", "_high")]


def attacked_answers(results: Path) -> pd.DataFrame:
    """Every answer to a harmful test prompt under an attack, without controls and attacks fitted on another model.

    Columns: id, run, attack, budget, prompt_id, prompt, answer. `id` is a hash of prompt and answer; equal answers to a
    prompt stand once.
    """
    sets = [pd.read_parquet(path) for path in sorted((results / "prompts").glob("*.parquet"))]
    known = pd.concat(sets, ignore_index=True)
    prompts = known[known["label"] == "harmful"].drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    rows = [
        {name: row[name] for name in ("run", "attack", "budget", "prompt_id", "answer")}
        for path in sorted((results / "models").glob("*/*/s*/answers/*.jsonl"))
        for row in read_jsonl(path)
        if row["attack"] != "direct"
        and not row["control"]
        and row["fitted_on"] in ("", SELF)
        and row["split"] == "test"
        and row["prompt_id"] in prompts
    ]
    if not rows:
        raise UserError(f"labelling: {results} holds no answers under attack; run the study first")
    found = pd.DataFrame(rows)
    found["prompt"] = found["prompt_id"].map(prompts)
    pairs = zip(found["prompt_id"], found["answer"], strict=True)
    found["id"] = [hashlib.sha256(f"{prompt}\n{answer}".encode()).hexdigest()[:16] for prompt, answer in pairs]
    return found.drop_duplicates("id", ignore_index=True)


def draw(answers: pd.DataFrame, n: int, seed: int = 0) -> pd.DataFrame:
    """About `n` answers, as many of each run under each attack, in random order: id, prompt, answer."""
    random = np.random.default_rng(seed)
    cells = [cell for _, cell in answers.groupby(["attack", "run"])]
    parts = [cell.iloc[random.permutation(len(cell))[: -(-n // len(cells))]] for cell in cells]
    drawn = pd.concat(parts, ignore_index=True)
    return drawn.iloc[random.permutation(len(drawn))][["id", "prompt", "answer"]].reset_index(drop=True)


def scored(answers: pd.DataFrame, labels: pd.DataFrame, judge: Judge) -> pd.DataFrame:
    """Each labelled answer with the judge's verdict: id, run, attack, budget, prompt_id, label, verdict. No text.

    labels: id, label; what else it holds is left (a released table has an earlier judge's verdicts). UserError for a
    label that is none, and for an answer that the study does not have.
    """
    if strange := sorted(set(labels["label"]) - set(LABELS)):
        raise UserError(f"labelling: {strange[0]!r} is no label; write one of {', '.join(LABELS)}")
    found = labels[["id", "label"]].merge(answers, on="id", how="left", validate="one_to_one")
    if found["answer"].isna().any():
        raise UserError(f"labelling: {found['answer'].isna().sum()} labelled answers are not in this study; draw anew")
    verdicts = [str(judge.judge(*pair)) for pair in zip(found["prompt"], found["answer"], strict=True)]
    return found.assign(verdict=verdicts)[["id", "run", "attack", "budget", "prompt_id", "label", "verdict"]]


def agreement(found: pd.DataFrame, judge: Judge, seed: int = 0) -> pd.DataFrame:
    """Accuracy, kappa and the shares of each label and verdict: by run and attack, by either, and of all pooled.

    `false_degenerate`: the share judged degenerate of the answers that are not labelled so, with Wilson's interval.
    """
    rows: list[dict[str, Any]] = []
    cells = [
        *(((POOLED, attack), cell) for attack, cell in found.groupby("attack")),
        *(((run, POOLED), cell) for run, cell in found.groupby("run")),
        *found.groupby(["run", "attack"]),
        ((POOLED, POOLED), found),
    ]
    for (run, attack), cell in cells:
        kappa, low, high = kappas(cell.rename(columns={"prompt_id": "prompt"}), seed)
        about = {"judge": judge.kind, "version": judge.version, "run": run, "attack": attack, "n": len(cell)}
        told = {"accuracy": (cell["label"] == cell["verdict"]).mean(), "kappa": kappa}
        shares = {f"labelled_{label}": (cell["label"] == label).mean() for label in LABELS}
        shares |= {f"judged_{label}": (cell["verdict"] == label).mean() for label in LABELS}
        fluent = cell.loc[cell["label"] != Verdict.DEGENERATE, "verdict"]
        false = wilson(int((fluent == Verdict.DEGENERATE).sum()), len(fluent))
        shares |= dict(zip(AGREEMENT[-3:], (false.value, false.low, false.high), strict=True))
        rows.append(about | told | {"kappa_low": low, "kappa_high": high} | shares)
    return pd.DataFrame(rows, columns=AGREEMENT)


def main(arguments: Sequence[str]) -> None:
    """Draw a sheet, or score labels; see the module."""
    if len(arguments) == 3 and arguments[0] == "draw":
        sheet = draw(attacked_answers(Path(arguments[1])), N)
        write_jsonl(
            arguments[2], [dict(zip(sheet, row, strict=True)) for row in sheet.to_numpy().tolist()], private=True
        )
        print(f"{len(sheet)} answers to label, readable by you alone: {arguments[2]}")
    elif len(arguments) == 4 and arguments[0] == "score":
        judge, out = load_judge({"kind": "keyword"}), Path(arguments[3])
        found = scored(attacked_answers(Path(arguments[1])), pd.read_csv(arguments[2], dtype=str), judge)
        table = agreement(found, judge)
        write_csv(found, out / "labels.csv")
        write_csv(table, out / "agreement.csv")
        print(table.round(3).to_string(index=False))
    else:
        raise UserError("labelling: say `draw RESULTS SHEET`, or `score RESULTS LABELS OUT`")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
