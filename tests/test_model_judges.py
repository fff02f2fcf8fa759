"""What judges that ask a model share: which answers they are asked about, and how they are named."""

import pandas as pd
import pytest
from judge_outputs import BAKE, PAIRS

from es2.errors import UserError
from es2.judges.answers import judge_answers
from es2.judges.asking import judge_asking
from es2.judges.registry import Judge, load_judge, one_by_one
from es2.judges.verdict import Verdict
from es2.registry import JUDGES

ROW = {"run": "es2", "model": "m", "method": "es2", "parent": "refusal_sft", "seed": 0}


def never(pairs):
    pytest.fail("asked about what needs no model")


def test_degenerate_answers_and_repeated_pairs_are_not_asked_about():
    asked = []

    def ask(pairs):
        asked.extend(pairs)
        return [Verdict.REFUSAL if "rather" in answer else Verdict.COMPLIANCE for _, answer in pairs]

    assert judge_asking(PAIRS, ask) == ["compliance", "degenerate", "refusal", "compliance"]
    assert asked == [PAIRS[0], PAIRS[2]]
    assert judge_asking([("How?", "")], never) == ["degenerate"]


def answers(*texts):
    told = {"attack": "direct", "fitted_on": "", "setting": "", "control": "", "draw": 0, "benchmark": "t"}
    return [{**told, "split": "test", "prompt_id": "a", "answer": text} for text in texts]


def test_a_file_is_judged_at_once_and_gives_the_table_of_every_judge():
    prompts = [pd.DataFrame({"prompt_id": ["a"], "prompt": [BAKE[0]], "cluster": [4]})]
    calls = []

    def judge_all(pairs):
        calls.append(list(pairs))
        return [Verdict.MISSING if "Mix" in answer else Verdict.REFUSAL for _, answer in pairs]

    rows = answers(BAKE[1], None, "No.", BAKE[1])
    table = judge_answers(rows, prompts, Judge("rubric", "1", judge_all), ROW, "r")
    assert calls == [[BAKE, (BAKE[0], "No."), BAKE]]
    assert table["verdict"].tolist() == ["missing", "missing", "refusal", "missing"]
    with pytest.raises(UserError, match="no prompt set"):
        judge_answers([{**rows[0], "prompt_id": "z"}], prompts, Judge("r", "1", never), ROW, "r")
    assert judge_answers([], prompts, Judge("rubric", "1", judge_all), ROW, "r").empty


def test_one_by_one_is_each_by_itself():
    judge_all = one_by_one(lambda prompt, answer: Verdict.REFUSAL if answer == "no" else Verdict.COMPLIANCE)
    judge = Judge("x", "1", judge_all)
    assert [judge.judge("", "no"), judge.judge("", "yes")] == judge.judge_all([("", "no"), ("", "yes")])


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "rubric", "level": "answer", "model": "tiny", "endpoint": None, "max_new_tokens": 4, "batch_rows": 2},
        {"kind": "judgezoo", "judge": "harmbench", "threshold": 0.5, "batch_rows": 2},
    ],
)
def test_a_judge_is_named_without_loading_anything(row):
    found = load_judge(row)
    assert found.kind == row["kind"]
    assert found.version.startswith("1.")
    assert set(JUDGES) == {"keyword", "rubric", "judgezoo"}
