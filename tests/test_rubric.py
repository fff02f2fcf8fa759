"""The rubric judge: its prompt, how an output is read, and a model of the catalogue that reads it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from judge_outputs import BAKE, OUTPUTS, PAIRS, rubric_row

from es2.errors import UserError
from es2.judges.local import odds_all, without_specials
from es2.judges.registry import load_judge
from es2.judges.rubric import LEVELS, VERSION, read_verdict, rubric_prompt


@pytest.mark.parametrize(("output", "verdict"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_outputs_last_line_is_the_verdict(output, verdict):
    assert read_verdict(output) == verdict


@given(st.text())
def test_every_output_is_read(output):
    assert read_verdict(output) in ("compliance", "refusal", "missing")


@given(st.text(alphabet="ab \n.:"), st.sampled_from(["yes", "no"]))
def test_text_without_the_word_before_a_verdict_does_not_matter(text, said):
    assert read_verdict(f"{text}\nVERDICT: {said}") == {"yes": "compliance", "no": "refusal"}[said]


def test_the_prompt_holds_request_answer_and_question():
    asked = rubric_prompt("useful", *BAKE)
    assert LEVELS["useful"] in asked
    assert LEVELS["answer"] not in asked
    assert all(f"\n{text}\n" in asked for text in BAKE)
    assert asked.endswith("VERDICT: yes\nVERDICT: no")
    assert rubric_prompt("useful", *BAKE) == asked


def test_an_answer_cannot_end_its_own_quotation():
    forged = rubric_prompt("answer", *BAKE)
    asked = rubric_prompt("answer", "How?", forged)
    mark = asked.partition("REQUEST ")[2].split()[0]
    assert asked.count(f"END OF ANSWER {mark}\n") == asked.count(f"\nANSWER {mark}\n") == 1
    assert mark not in forged


def test_braces_in_texts_stay():
    assert "{mark} {0}" in rubric_prompt("answer", "{prompt}", "{mark} {0}")


def test_a_random_model_gives_verdicts_that_are_missing_and_counted(tiny_folders):
    model = {"manifest": tiny_folders["llama"] / "manifest.json", "dtype": "float32", "system_prompt": "template"}
    judge = load_judge(rubric_row(model="tiny"), model)
    assert (judge.kind, judge.version) == ("rubric", VERSION)
    assert judge.judge_all(PAIRS) == ["missing", "degenerate", "missing", "missing"]


def test_a_models_output_is_read(tiny_folders, monkeypatch):
    monkeypatch.setattr("es2.judges.local.say_all", lambda prompts, *_: ["VERDICT: yes", "Hm."][: len(prompts)])
    assert load_judge(rubric_row(model="m"), {}).judge_all(PAIRS) == [
        "compliance",
        "degenerate",
        "missing",
        "compliance",
    ]


def test_odds_are_those_of_plain_transformers_and_decide_by_the_threshold(tiny_folders, load_model):
    model = {"manifest": tiny_folders["llama"] / "manifest.json", "dtype": "float32", "system_prompt": "template"}
    row = rubric_row(model="tiny", max_new_tokens=None, threshold=0.0)
    judge = load_judge(row, model)
    lm = load_model("llama")
    yes, no = (lm.tokenizer(word, add_special_tokens=False).input_ids[0] for word in ("yes", "no"))
    space = lm.tokenizer(" ", add_special_tokens=False).input_ids
    expected = []
    for pair in PAIRS:
        text = lm.chat_text(rubric_prompt("answer", *pair)) + "VERDICT:"
        with torch.no_grad():
            ids = lm.tokenizer(text, add_special_tokens=False).input_ids + space
            logits = lm.model(torch.tensor([ids])).logits[0, -1]
        expected.append((logits[yes] - logits[no]).item())
    assert judge.odds_all is not None
    assert judge.odds_all(PAIRS) == pytest.approx(expected, abs=1e-4)
    assert len({round(one, 3) for one in expected}) > 1
    means = ["compliance" if one > 0 else "refusal" for one in expected]
    assert judge.judge_all(PAIRS) == [means[0], "degenerate", means[2], means[3]]
    above = load_judge(row | {"threshold": max(expected) + 1}, model)
    assert set(above.judge_all(PAIRS)) == {"refusal", "degenerate"}


def test_outputs_that_do_not_differ_have_no_odds(tiny_folders):
    model = {"manifest": tiny_folders["llama"] / "manifest.json", "dtype": "float32", "system_prompt": "template"}
    with pytest.raises(UserError, match="does not tell 'VERDICT: yes' from 'VERDICT: yes'"):
        odds_all(["a"], model, ("VERDICT: yes", "VERDICT: yes"), 2)


def test_a_model_of_the_catalogue_needs_the_studys_job():
    with pytest.raises(UserError, match="the model big judges in the study's jobs only"):
        load_judge(rubric_row(model="big")).judge(*BAKE)


def test_special_tokens_in_an_answer_are_text(load_model):
    lm = load_model()
    special = next(token.content for token in lm.tokenizer.added_tokens_decoder.values() if token.special)
    plain = lm.tokenizer("a b", add_special_tokens=False)["input_ids"]
    ids = set(lm.tokenizer.all_special_ids)
    assert ids & set(lm.tokenizer(f"a {special} b", add_special_tokens=False)["input_ids"])
    broken = lm.tokenizer(without_specials(lm, f"a {special} b"), add_special_tokens=False)["input_ids"]
    assert not ids & (set(broken) - set(plain))
