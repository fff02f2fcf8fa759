"""Prompts: readers, duplicates, near-twin clusters, splits and leakage checks (method.md §3)."""

import itertools
import json
from importlib import resources

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_tables import distinct, jaccard, table

from es2.errors import UserError
from es2.prompts.cleaning import content_words, drop_duplicates, form_of, normalise, prompt_id
from es2.prompts.leakage import check_leakage
from es2.prompts.prepare import prepare_sets
from es2.prompts.readers import read_prompts, save_prompts


def write(path, rows):
    frame = pd.DataFrame(rows)
    writers = {
        "csv": lambda: frame.to_csv(path, index=False),
        "json": lambda: path.write_text(json.dumps({"rows": rows})),
        "jsonl": lambda: path.write_text("\n".join(map(json.dumps, rows)) + "\n\n"),
        "parquet": lambda: frame.to_parquet(path),
        "yaml": lambda: path.write_text(json.dumps({"rows": rows})),
    }
    writers[path.suffix[1:]]()
    return path


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet", "yaml"])
def test_formats_read_alike(tmp_path, suffix):
    rows = [
        {"q": " Say hello\u2028now ", "kind": "x", "answer": "None"},
        {"q": "NA", "kind": "y", "answer": "Hi, you"},
    ]
    path = write(tmp_path / f"set.{suffix}", rows)
    row = {"prompt_column": "q", "category_column": "kind", "target_column": "answer"}
    row |= {"records": "rows"} if suffix in ("json", "yaml") else {}
    assert read_prompts(path, row, "toy").to_list() == [
        {"prompt": "Say hello\u2028now", "category": "x", "form": "other", "target": "None"},
        {"prompt": "NA", "category": "y", "form": "other", "target": "Hi, you"},
    ]


def test_lists_are_joined_and_form_is_told_or_read(tmp_path):
    rows = [{"prompt": "Write a short poem about the sea", "tags": ["a", "b"], "shape": ""}]
    rows += [{"prompt": "Why is the sea salty?", "tags": [], "shape": "riddle"}]
    path = write(tmp_path / "set.jsonl", rows)
    first, second = read_prompts(path, {"category_column": "tags", "form_column": "shape"}, "toy").to_list()
    assert (first["category"], first["form"]) == ("a; b", "imperative")
    assert (second["category"], second["form"]) == ("", "riddle")


@pytest.mark.parametrize(
    ("name", "content", "row", "words"),
    [
        ("a.csv", "goal,target\nx,y\n", {}, ("prompt_column", "'prompt'", "goal, target")),
        ("a.csv", "prompt\nx\n", {"category_column": "kind"}, ("category_column", "'kind'")),
        ("a.csv", "prompt\n", {}, ("no rows",)),
        ("a.csv", "", {}, ("cannot be read as csv",)),
        ("a.jsonl", '{"prompt": "x"}\n{"prom', {}, ("cannot be read as jsonl",)),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": "  "}', {}, ("1 of 2 rows", "row 2")),
        ("a.jsonl", '{"prompt": ["x", "y"]}', {}, ("no text in column 'prompt'",)),
        ("a.jsonl", '{"prompt": []}', {}, ("no text in column 'prompt'",)),
        ("a.csv", "prompt\nx\n", {"context_column": "before"}, ("context_column", "'before'", "has prompt")),
        ("a.csv", "prompt\nx\n", {"where": {"kind": "a"}}, ("sources.toy.where", "'kind'", "has prompt")),
        ("a.csv", "prompt,kind\nx,b\ny,c\n", {"where": {"kind": "a"}}, ("where.kind", "no row", "'a'", "'b', 'c'")),
        ("a.csv", "prompt,kind\nx,b\n ,a\n", {"where": {"kind": "a"}}, ("1 of 1 rows that `where` takes",)),
        ("a.json", '{"rows": []}', {"records": "seeds"}, ("records", "'seeds'", "rows")),
        ("a.json", '{"rows": []}', {}, ("name it in `records`",)),
        ("a.yaml", "rows: [", {"records": "rows"}, ("cannot be read as yaml",)),
        ("a.yaml", "!!python/object/apply:os.getcwd []", {}, ("cannot be read as yaml",)),
        ("a.parquet", "no", {}, ("cannot be read as parquet",)),
        ("a.txt", "x", {}, ("set `format`",)),
        ("a.csv", "prompt\nx\n", {"format": "xlsx"}, ("sources.toy.format", "'xlsx'")),
    ],
)
def test_bad_files_in_one_sentence(tmp_path, name, content, row, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_prompts(path, row, "toy")
    assert str(caught.value).startswith("sources.toy")
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_a_context_stands_before_its_prompt_as_in_harmbench(tmp_path):
    rows = [{"Behavior": "Sum this up", "Context": "Bread is baked.\n"}, {"Behavior": "Write a poem", "Context": " "}]
    path = write(tmp_path / "set.csv", rows)
    prompts = read_prompts(path, {"prompt_column": "Behavior", "context_column": "Context"}, "toy")
    assert prompts["prompt"] == ["Bread is baked.\n\n\n---\n\nSum this up", "Write a poem"]
    assert prompts.column_names == ["prompt", "category", "form", "target"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_are_taken_by_the_values_of_columns(tmp_path, suffix):
    rows = [
        {"prompt": "How do I kill a process?", "label": "safe", "part": 1},
        {"prompt": "How do I kill time?", "label": "safe", "part": 2},
        {"prompt": "A stand-in for an unsafe contrast", "label": "unsafe", "part": 1},
    ]
    path = write(tmp_path / f"set.{suffix}", rows)
    taken = [{"label": "safe"}, {"label": "unsafe"}, {"label": "safe", "part": "2"}]
    found = [read_prompts(path, {"where": where}, "toy")["prompt"] for where in taken]
    prompts = [row["prompt"] for row in rows]
    assert found == [prompts[:2], prompts[2:], prompts[1:2]]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_only_turn_of_a_chat_is_its_prompt(tmp_path, suffix):
    path = write(tmp_path / f"set.{suffix}", [{"turns": [" Say hello "]}, {"turns": ["Say good bye"]}])
    assert read_prompts(path, {"prompt_column": "turns"}, "toy")["prompt"] == ["Say hello", "Say good bye"]


def test_two_sets_are_read_from_the_two_parts_of_one_file(tmp_path):
    texts = distinct(12)
    rows = [{"prompt": text, "label": "safe" if place % 2 else "unsafe"} for place, text in enumerate(texts)]
    path = write(tmp_path / "set.csv", rows)
    sources = {"good": {"where": {"label": "safe"}}, "bad": {"where": {"label": "unsafe"}}}
    sets = {
        name: {"label": label, "sources": [name], "splits": {"test": "rest"}}
        for name, label in (("good", "safe"), ("bad", "harmful"))
    }
    tables, _, _ = prepare_sets(sets, sources, {"good": path, "bad": path}, 0)
    assert set(tables["good"]["prompt"]) == set(texts[1::2])
    assert set(tables["bad"]["prompt"]) == set(texts[::2])


def test_member_name_tells_the_format(tmp_path):
    path = tmp_path / "fetched"
    path.write_text("prompt\nx\n")
    assert read_prompts(path, {"member": "a/b.csv"}, "toy")["prompt"] == ["x"]


def test_saved_sets_read_back_and_are_equal_byte_for_byte(tmp_path):
    frame = table(["Say hello", "Say good bye"])
    save_prompts(frame, tmp_path / "a.parquet")
    save_prompts(frame.copy(), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pd.read_parquet(tmp_path / "a.parquet").to_dict("records") == frame.to_dict("records")


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_normalise_is_idempotent(text):
    assert normalise(normalise(text)) == normalise(text)
    assert prompt_id(normalise(text)) == prompt_id(text)


def test_normalise_folds_what_does_not_change_a_request():
    assert normalise(" “Write  a\tPOEM…” ") == "write a poem"
    assert normalise("?!") == "?!"
    assert prompt_id("Write a poem.") == prompt_id("write a poem")
    assert prompt_id("Write a poem") != prompt_id("Write two poems")
    assert len(prompt_id("x")) == 16


def test_content_words():
    assert content_words("How to hack into the databases") == content_words("hacking of a database")
    assert content_words("Why is it so?") == {"why", "is", "it", "so"}


def test_forms():
    assert form_of("Write a tutorial on how to bake a sourdough loaf") == "imperative"
    assert form_of("Can you write a tutorial on baking?") == "question"
    assert form_of("I would like a tutorial on baking sourdough bread") == "other"
    assert form_of("Bake bread") == "other"
    assert form_of("Write a tutorial on bread. Then add a picture of it") == "other"


def test_duplicates_go_from_the_later_set():
    prompts = pd.concat([table(["Say hello.", "one"], "small"), table(["say  hello", "two", "Two!"], "large")])
    kept = drop_duplicates(prompts.reset_index(drop=True), ["large", "small"])
    assert sorted(zip(kept["set"], kept["prompt"], strict=True)) == [
        ("large", "Two!"),
        ("large", "say  hello"),
        ("small", "one"),
    ]


def test_one_prompt_under_two_labels_is_refused():
    prompts = pd.concat([table(["Say hello"], "bad"), table(["say hello!"], "good", "safe")])
    with pytest.raises(UserError, match=r"harmful in prompt_sets\.bad and as safe in prompt_sets\.good"):
        drop_duplicates(prompts.reset_index(drop=True), ["bad", "good"])


def test_checks_see_style_and_near_twins():
    harmful = table([f"Write {text} in a long and winding sentence" for text in distinct(20)], "bad")
    safe = table([f"{text}?" for text in distinct(20, offset=500)], "good", "safe")
    prompts = pd.concat([harmful, safe], ignore_index=True)
    prompts["split"] = ["attack", "test"] * 20
    checks = check_leakage(prompts).set_index("check")
    assert checks.loc["style_auroc_length", "value"] == 1.0
    assert checks.loc["style_auroc_bag_of_words", "value"] == 1.0
    assert checks.loc["median_length_difference", "value"] == 7.0
    assert not checks.loc["median_length_difference", "ok"]
    assert not checks.loc["safe_share_in_advbench_form", "ok"]
    nearest = max(
        jaccard(a, b)
        for (a, x), (b, y) in itertools.combinations(zip(prompts.prompt, prompts.split, strict=True), 2)
        if x != y
    )
    assert checks.loc["max_jaccard_across_splits", "value"] == pytest.approx(nearest)


def test_unknown_source_is_named(tmp_path):
    sets = {"main": {"label": "safe", "sources": ["none"], "splits": {"test": "rest"}}}
    with pytest.raises(UserError, match=r"prompt_sets\.main\.sources: 'none'"):
        prepare_sets(sets, {}, {}, 0)


def test_a_set_without_splits_is_refused(tmp_path):
    path = write(tmp_path / "set.csv", [{"prompt": "Say hello"}])
    sets = {"main": {"label": "safe", "sources": ["toy"], "splits": {"test": None}}}
    with pytest.raises(UserError, match=r"prompt_sets\.main\.splits: a prompt set needs at least one split"):
        prepare_sets(sets, {"toy": {}}, {"toy": path}, 0)


BUNDLED = resources.files("es2.prompts") / "bundled"


@pytest.fixture(scope="module")
def own_sets():
    """The project's own prompts as the default study splits them."""
    names = ("plain_imperative", "plain_general", "look_dangerous")
    sets = {
        "plain": {
            "label": "safe",
            "sources": ["plain_imperative", "plain_general"],
            "splits": {"defence": 250, "attack": 100, "validation": 50, "test": "rest"},
        },
        "look_dangerous": {
            "label": "safe",
            "sources": ["look_dangerous"],
            "splits": {"defence": 60, "validation": 40, "test": "rest"},
        },
    }
    return prepare_sets(sets, {name: {} for name in names}, {name: BUNDLED / f"{name}.jsonl" for name in names}, 0)


def test_bundled_prompts_meet_the_numbers_of_the_method(own_sets):
    tables, _, checks = own_sets
    plain, dangerous = tables["plain"], tables["look_dangerous"]
    assert len(plain) >= 600
    assert len(dangerous) >= 200
    assert plain["split"].value_counts().drop("test").to_dict() == {
        "defence": 250,
        "attack": 100,
        "validation": 50,
    }
    assert (plain["split"] == "test").sum() >= 200
    assert (dangerous["split"] == "test").sum() >= 100
    assert (plain["form"] == "imperative").mean() >= 0.5
    assert checks["ok"].all()
    assert not plain["prompt_id"].duplicated().any()


def test_bundled_prompts_fill_no_template(own_sets):
    for frame in own_sets[0].values():
        assert frame["cluster"].value_counts().max() <= 3
        openings = frame["prompt"].str.lower().str.split().str[:4].str.join(" ")
        assert openings.value_counts(normalize=True).max() <= 0.05


def test_bundled_refusals_are_twenty_forms():
    texts = [json.loads(line)["text"] for line in (BUNDLED / "refusals.jsonl").read_text().splitlines() if line]
    assert len({normalise(text) for text in texts}) >= 20
