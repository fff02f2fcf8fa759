"""Classifiers of judgezoo, against a stand-in for the package."""

import sys
import types

import pytest
from judge_outputs import BAKE

from es2.errors import UserError
from es2.judges import zoo
from es2.judges.registry import load_judge


@pytest.fixture
def judgezoo(monkeypatch):
    """judgezoo(score of an answer) puts a package of that name in place; it returns what this was given."""

    def install(score, release=zoo.RELEASE):
        seen = {"names": [], "chats": []}

        class FakeJudge:
            @classmethod
            def from_name(cls, name):
                seen["names"].append(name)
                return cls()

            def __call__(self, chats):
                seen["chats"].append(chats)
                return {"p_harmful": [score(chat[-1]["content"]) for chat in chats]}

        monkeypatch.setitem(sys.modules, "judgezoo", types.SimpleNamespace(Judge=FakeJudge))
        monkeypatch.setattr(zoo, "version", lambda _: release)
        return seen

    return install


def zoo_row(**more):
    return {"kind": "judgezoo", "judge": "strong_reject", "threshold": 0.5, "batch_rows": 2} | more


def test_scores_are_verdicts_at_the_threshold_and_what_is_none_is_missing(judgezoo):
    scores = {
        "It is one.": 0.5,
        "It is two.": 0.49,
        "It is three.": None,
        "It is four.": float("nan"),
        "It is five.": [0.9],
    }
    seen = judgezoo(scores.get)
    pairs = [("How?", text) for text in ["", *scores]]
    expected = ["degenerate", "compliance", "refusal", "missing", "missing", "missing"]
    assert load_judge(zoo_row()).judge_all(pairs) == expected
    assert seen["names"] == ["strong_reject"]
    assert [len(chats) for chats in seen["chats"]] == [2, 2, 1]
    assert seen["chats"][0][0] == [
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "It is one."},
    ]


def test_a_classifier_that_fails_is_one_sentence_without_its_message(judgezoo):
    def fail(answer):
        raise ValueError(f"cannot read {answer}")

    judgezoo(fail)
    with pytest.raises(UserError, match=r"strong_reject failed on 1 answers \(ValueError\)") as raised:
        load_judge(zoo_row()).judge(*BAKE)
    assert BAKE[1] not in str(raised.value)
    assert raised.value.__suppress_context__


def test_scores_that_fit_no_answer_are_a_mistake(judgezoo, monkeypatch):
    judgezoo(lambda answer: 0.0)
    monkeypatch.setattr(sys.modules["judgezoo"].Judge, "__call__", lambda self, chats: {"p_harmful": []})
    with pytest.raises(UserError, match="gave 0 scores for 1 answers"):
        load_judge(zoo_row()).judge(*BAKE)


def test_weights_that_do_not_load_are_one_sentence(judgezoo, monkeypatch):
    judgezoo(lambda answer: 0.0)

    def gated(name):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it")

    monkeypatch.setattr(sys.modules["judgezoo"].Judge, "from_name", gated)
    with pytest.raises(
        UserError, match=r"could not load strong_reject \(OSError: You are trying .* repo\.\)"
    ) as raised:
        load_judge(zoo_row()).judge(*BAKE)
    assert "\n" not in str(raised.value)


def test_the_package_must_be_there_in_the_release_that_was_read(judgezoo, monkeypatch):
    judgezoo(lambda answer: 0.0, release="0.2.0")
    with pytest.raises(UserError, match=r"checked with judgezoo 0\.1\.9, and 0\.2\.0 is installed; run `pip install"):
        load_judge(zoo_row()).judge(*BAKE)

    def absent(name):
        raise zoo.PackageNotFoundError(name)

    monkeypatch.setattr(zoo, "version", absent)
    with pytest.raises(UserError, match=r"judgezoo, which is not installed; run `pip install judgezoo==0\.1\.9`"):
        load_judge(zoo_row()).judge(*BAKE)


@pytest.mark.parametrize("name", sorted(zoo.UNFIT))
def test_judges_of_judgezoo_that_run_code_guess_or_prompt_are_not_taken(name):
    with pytest.raises(UserError, match=f"judges.x.judge: judgezoo's {name} is not taken, for "):
        zoo.check_name("judges.x.judge", name)
