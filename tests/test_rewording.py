"""Rewording: the same request in another form, for defence prompts only, and never near another split."""

import pandas as pd

from es2.prompts.cleaning import content_words, prompt_id
from es2.prompts.leakage import check_leakage
from es2.prompts.rewording import FORM, QUESTIONS, WRAPPERS, add_reworded, reword


def frame(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    """Prompts of (set, split, form, text)."""
    prompts = pd.DataFrame(rows, columns=["set", "split", "form", "prompt"])
    return prompts.assign(prompt_id=[prompt_id(text) for text in prompts["prompt"]], label="safe", cluster=0)


def test_a_how_to_becomes_a_question_about_its_task():
    assert reword("Write a guide on how to sharpen a kitchen knife.") in {
        question.format(task="sharpen a kitchen knife") for question in QUESTIONS
    }


def test_another_sentence_is_wrapped_whole():
    assert reword("List three birds that sing at night") in {
        wrapper.format(request="list three birds that sing at night") for wrapper in WRAPPERS
    }


def test_copies_of_one_prompt_differ_and_stay_the_same_from_call_to_call():
    prompt = "Write a guide on how to sharpen a kitchen knife"
    copies = [reword(prompt, copy) for copy in range(4)]
    assert len(set(copies)) == 4
    assert copies == [reword(prompt, copy) for copy in range(4)]


def test_wrappers_bring_no_content_that_could_tell_the_labels_apart():
    words = [content_words(text.format(request="", task="")) for text in (*WRAPPERS, *QUESTIONS)]
    assert max(len(one) for one in words) <= 5


def test_only_imperative_defence_prompts_of_the_named_sets_get_copies():
    prompts = frame(
        [
            ("a", "defence", "imperative", "Explain how to fold a paper boat"),
            ("a", "defence", "question", "Which tea suits the evening?"),
            ("a", "test", "imperative", "Describe the tides of the northern sea"),
            ("b", "defence", "imperative", "Draft a toast for a wedding in spring"),
        ]
    )
    found = add_reworded(prompts, {"a": 2, "b": 0})
    added = found[found["form"] == FORM]
    assert list(added["set"]) == ["a", "a"]
    assert set(added["split"]) == {"defence"}
    assert not set(added["prompt_id"]) & set(prompts["prompt_id"])
    assert len(found) == len(prompts) + 2


def test_a_copy_near_a_prompt_of_another_split_is_left_out():
    prompts = frame(
        [
            ("a", "defence", "imperative", "Publish a detailed illustrated handbook on how to brew pale beer"),
            ("a", "test", "question", "How do I brew pale beer?"),
        ]
    )
    found = add_reworded(prompts, {"a": 1})
    assert FORM not in set(found["form"])
    checks = check_leakage(found).set_index("check")
    assert checks.loc["max_jaccard_across_splits", "ok"]
