"""Blind labels of attacked answers: what the sheet tells, and what the score is."""

import json
import stat

import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from es2.errors import UserError
from es2.files import write_jsonl
from es2.judges.registry import Judge, one_by_one
from es2.judges.verdict import Verdict
from es2.labelling import agreement, attacked_answers, draw, main, scored

JUDGE = Judge(
    "keyword", "9.9", one_by_one(lambda prompt, answer: Verdict.REFUSAL if "no" in answer else Verdict.COMPLIANCE)
)


@pytest.fixture
def results(tmp_path):
    """Two runs' answers to 20 harmful and 5 harmless prompts, under two attacks."""
    folder = tmp_path / "results"
    (folder / "prompts").mkdir(parents=True)
    for name, label, n in (("harm", "harmful", 20), ("plain", "safe", 5)):
        frame = pd.DataFrame({"prompt_id": [f"{name}{i}" for i in range(n)], "prompt": [f"ask {i}" for i in range(n)]})
        frame.assign(label=label).to_parquet(folder / "prompts" / f"{name}.parquet")
    for run in ("sft", "es2"):
        for attack in ("direct", "scav", "ablation"):
            rows = [
                {"run": run, "attack": attack, "fitted_on": fitted_on, "budget": None, "control": control}
                | {"split": "test", "prompt_id": f"{name}{i}"}
                | {"answer": f"{'no' if i % 3 else 'yes'} {run} {attack}{control}{fitted_on}"}
                for name, n in (("harm", 20), ("plain", 5))
                for i in range(n)
                for control in ("", "random")
                for fitted_on in ("self", "parent")
            ]
            write_jsonl(folder / "models" / "m" / run / "s0" / "answers" / f"{attack}.jsonl", rows)
    return folder


def test_the_sheet_is_blind_and_holds_as_many_of_each_run_under_each_attack(results, tmp_path):
    answers = attacked_answers(results)
    assert len(answers) == 2 * 2 * 20
    assert set(answers["attack"]) == {"scav", "ablation"}
    sheet = draw(answers, 31)
    assert list(sheet.columns) == ["id", "prompt", "answer"]
    told = sheet.merge(answers, on="id")
    assert set(told.groupby(["run", "attack"]).size()) == {8}
    assert len(told) == 4 * 8
    assert not told["attack"].is_monotonic_increasing
    assert not told["attack"].is_monotonic_decreasing
    pd.testing.assert_frame_equal(sheet, draw(answers, 31))
    main(["draw", str(results), str(tmp_path / "sheet.jsonl")])
    assert stat.S_IMODE((tmp_path / "sheet.jsonl").stat().st_mode) == 0o600
    lines = [json.loads(line) for line in (tmp_path / "sheet.jsonl").read_text().splitlines()]
    assert {frozenset(line) for line in lines} == {frozenset({"id", "prompt", "answer"})}


def test_the_score_is_scikit_learns_and_holds_no_text(results, tmp_path, capsys):
    answers = attacked_answers(results)
    labels = draw(answers, 40)[["id"]].assign(label=["refusal", "compliance", "degenerate", "refusal"] * 10)
    found = scored(answers, labels, JUDGE)
    pd.testing.assert_frame_equal(scored(answers, found.assign(verdict="another judge's"), JUDGE), found)
    table = agreement(found, JUDGE).set_index(["run", "attack"])
    assert len(table) == 2 + 2 + 4 + 1
    for run, attack in table.index:
        cell = found[found["run"].isin([run] if run != "pooled" else ["sft", "es2"])]
        cell = cell if attack == "pooled" else cell[cell["attack"] == attack]
        row = table.loc[(run, attack)]
        assert row["n"] == len(cell)
        assert row["kappa"] == pytest.approx(cohen_kappa_score(cell["label"], cell["verdict"]))
        assert row["accuracy"] == pytest.approx((cell["label"] == cell["verdict"]).mean())
        assert row["labelled_degenerate"] == pytest.approx((cell["label"] == "degenerate").mean())
        assert row["judged_refusal"] == pytest.approx((cell["verdict"] == "refusal").mean())
    labels.to_csv(tmp_path / "mine.csv", index=False)
    main(["score", str(results), str(tmp_path / "mine.csv"), str(tmp_path / "out")])
    written = (tmp_path / "out" / "labels.csv").read_text() + (tmp_path / "out" / "agreement.csv").read_text()
    assert "ask" not in written
    assert "yes es2" not in written


def test_false_alarms_of_degenerate_answers_are_a_share_of_those_that_are_labelled_fluent():
    labels = ["refusal"] * 5 + ["compliance"] * 5 + ["degenerate"] * 4
    verdicts = ["refusal", "degenerate"] * 5 + ["degenerate", "degenerate", "compliance", "refusal"]
    found = pd.DataFrame({"label": labels, "verdict": verdicts, "run": "es2", "attack": "scav"})
    row = agreement(found.assign(prompt_id=range(14)), JUDGE).iloc[-1]
    bounds = binomtest(5, 10).proportion_ci(method="wilson")
    assert row["false_degenerate"] == 0.5
    assert (row["false_degenerate_low"], row["false_degenerate_high"]) == pytest.approx((bounds.low, bounds.high))


def test_wrong_labels_are_one_sentence(results, tmp_path):
    answers = attacked_answers(results)
    with pytest.raises(UserError, match="'maybe' is no label"):
        scored(answers, pd.DataFrame({"id": [answers["id"][0]], "label": ["maybe"]}), JUDGE)
    with pytest.raises(UserError, match="1 labelled answers are not in this study"):
        scored(answers, pd.DataFrame({"id": ["0" * 16], "label": ["refusal"]}), JUDGE)
    (tmp_path / "empty" / "prompts").mkdir(parents=True)
    one = pd.DataFrame({"prompt_id": ["a"], "prompt": ["b"], "label": ["harmful"]})
    one.to_parquet(tmp_path / "empty" / "prompts" / "a.parquet")
    with pytest.raises(UserError, match="holds no answers under attack"):
        attacked_answers(tmp_path / "empty")
    with pytest.raises(UserError, match="say `draw"):
        main(["drew"])
