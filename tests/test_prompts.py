"""Prompts: readers, duplicates, near-twin clusters, splits and leakage checks (method.md §3)."""

import itertools
import json
import string
import time
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from es2.errors import UserError
from es2.prompts.cleaning import content_words, drop_duplicates, form_of, normalise, prompt_id
from es2.prompts.leakage import check_leakage
from es2.prompts.prepare import prepare_sets
from es2.prompts.readers import load_prompts, read_prompts, save_prompts
from es2.prompts.splits import SPLITS, cluster_prompts, jaccard_blocks, split_sets

WORDS = [f"{a}{b}{c}" for a, b, c in itertools.product("bdfgk", "aou", ("nk", "rt", "mp", "lk"))]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), max_size=40)
SETTINGS = settings(max_examples=40, deadline=None)


def jaccard(a, b):
    return len(content_words(a) & content_words(b)) / len(content_words(a) | content_words(b))


def table(texts, name="main", label="harmful", source="one"):
    rows = [(prompt_id(text), text, name, label, source) for text in texts]
    return pd.DataFrame(rows, columns=["prompt_id", "prompt", "set", "label", "source"])


def distinct(n, offset=0):
    """Return n prompts of which no two share a content word."""
    letters = string.ascii_lowercase[:16]
    names = ["".join(code) for code in itertools.islice(itertools.product(letters, repeat=4), offset, offset + 2 * n)]
    return [f"{first}k {second}k" for first, second in zip(names[::2], names[1::2], strict=True)]


# --- readers


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
        ("a.jsonl", '{"prompt": ["x"]}', {}, ("no text in column 'prompt'",)),
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


def test_member_name_tells_the_format(tmp_path):
    path = tmp_path / "fetched"
    path.write_text("prompt\nx\n")
    assert read_prompts(path, {"member": "a/b.csv"}, "toy")["prompt"] == ["x"]


def test_saved_sets_read_back_and_are_equal_byte_for_byte(tmp_path):
    frame = table(["Say hello", "Say good bye"])
    save_prompts(frame, tmp_path / "a.parquet")
    save_prompts(frame.copy(), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert load_prompts(tmp_path / "a.parquet").to_list() == frame.to_dict("records")
    assert load_prompts(tmp_path / "a.parquet").cache_files == []


# --- cleaning


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


# --- clusters


@given(TEXTS, st.integers(1, 50))
@SETTINGS
def test_jaccard_and_clusters_agree_with_brute_force(texts, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("es2.prompts.splits._BLOCK", block)
        found = {(i, j): value for part in jaccard_blocks(texts) for i, j, value in zip(*part, strict=True)}
    parent = list(range(len(texts)))

    def root(i):
        return i if parent[i] == i else root(parent[i])

    for i, j in itertools.combinations(range(len(texts)), 2):
        assert found.get((i, j), 0.0) == pytest.approx(jaccard(texts[i], texts[j]))
        if jaccard(texts[i], texts[j]) >= 0.5:
            parent[root(i)] = root(j)
    clusters = cluster_prompts(texts, [prompt_id(text) for text in texts])
    for i, j in itertools.combinations(range(len(texts)), 2):
        assert (clusters[i] == clusters[j]) == (root(i) == root(j))


@given(TEXTS, st.randoms(use_true_random=False))
@SETTINGS
def test_cluster_numbers_do_not_depend_on_the_order(texts, random):
    texts = list(dict.fromkeys(texts))
    before = dict(zip(texts, cluster_prompts(texts, [prompt_id(t) for t in texts]), strict=True))
    random.shuffle(texts)
    after = dict(zip(texts, cluster_prompts(texts, [prompt_id(t) for t in texts]), strict=True))
    assert before == after


def test_ten_thousand_prompts_are_clustered_in_seconds():
    random = np.random.default_rng(0)
    vocabulary = np.array(distinct(2500))
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    drawn = random.choice(vocabulary, size=(10_000, 6), p=weights / weights.sum())
    texts = [" ".join(row) for row in drawn]
    began = time.perf_counter()
    cluster_prompts(texts, [str(i) for i in range(len(texts))])
    assert time.perf_counter() - began < 30  # about 4 s alone on one core


# --- splits

WANTED = {
    "main": {"defence": 8, "attack": 5, "validation": 3, "test": "rest"},
    "other": {"test": "rest"},
    "safe": {"defence": 4, "attack": 4, "test": "rest"},
}


@st.composite
def three_sets(draw):
    """Three sets with room to spare, and near-twins within and across them."""
    parts = []
    for place, (name, n) in enumerate({"main": 40, "other": 12, "safe": 24}.items()):
        texts = distinct(n, offset=1000 * place)
        twins = draw(st.lists(st.sampled_from(distinct(10, offset=0)), max_size=8))
        texts += [f"{text} extra{letter}" for text, letter in zip(twins, "abcdefgh", strict=False)]
        parts.append(table(dict.fromkeys(texts), name, "safe" if name == "safe" else "harmful"))
    # The same text under both labels is an error of its own.
    joined = pd.concat(parts, ignore_index=True)
    return joined[~joined.prompt_id.duplicated() | (joined["set"] == "main")].reset_index(drop=True)


@given(three_sets(), st.integers(0, 5), st.randoms(use_true_random=False))
@SETTINGS
def test_splits_keep_clusters_whole_and_sizes_exact_whatever_the_order(prompts, seed, random):
    result, summary = split_sets(prompts, WANTED, seed)
    assert (result.groupby("cluster")["split"].nunique() == 1).all()
    for block in jaccard_blocks(list(result["prompt"])):
        for i, j, value in zip(*block, strict=True):
            assert value < 0.5 or result.split[i] == result.split[j]
    for row in summary[summary["split"].isin(SPLITS)].itertuples():
        held = ((result["set"] == row.set) & (result["split"] == row.split)).sum()
        assert held == row.n
        assert row.asked == "rest" or row.n == row.asked
    assert summary.n.sum() == len(prompts)
    shuffled = prompts.sample(frac=1, random_state=random.randrange(1000)).reset_index(drop=True)
    pd.testing.assert_frame_equal(result, split_sets(shuffled, WANTED, seed)[0])


def test_seed_changes_the_splits_and_one_more_prompt_hardly_does():
    prompts = table(distinct(60))
    wanted = {"main": {"defence": 20, "attack": 10, "test": "rest"}}

    def splits(frame, seed):
        return split_sets(frame, wanted, seed)[0].set_index("prompt_id")["split"]

    first = splits(prompts, 0)
    assert (first != splits(prompts, 1)[first.index]).sum() > 10
    longer = splits(pd.concat([prompts, table(distinct(1, offset=500))], ignore_index=True), 0)
    assert (first != longer[first.index]).sum() <= 3


def test_sets_that_lack_a_split_drop_near_twins_and_duplicates():
    large = distinct(20)
    small = [f"{text} more" for text in large[:10]] + large[10:15] + distinct(10, offset=500)
    prompts = pd.concat([table(large, "large"), table(small, "small")], ignore_index=True)
    wanted = {"small": {"test": "rest"}, "large": {"defence": 10, "test": "rest"}}
    prompts = pd.concat([prompts, table(distinct(20, offset=900), "large")], ignore_index=True)
    result, summary = split_sets(prompts, wanted, 0)
    counts = summary[summary["set"] == "small"].set_index("split")["n"]
    mine, theirs = (result[result["set"] == name] for name in ("small", "large"))
    trained = set(theirs.loc[theirs["split"] == "defence", "cluster"])
    assert trained.isdisjoint(mine["cluster"])
    assert counts["dropped_duplicate"] == 5
    assert counts["dropped_near_twin"] == sum(
        theirs.set_index("prompt").loc[text, "split"] == "defence" for text in large[:10]
    )
    assert counts["test"] == len(mine)


def test_sources_are_mixed_alike_in_every_split():
    prompts = pd.concat([table(distinct(60), source="a"), table(distinct(40, 500), source="b")], ignore_index=True)
    result, _ = split_sets(prompts, {"main": {"defence": 30, "attack": 10, "test": "rest"}}, 3)
    shares = result.groupby("split")["source"].value_counts().unstack()
    assert shares.loc["defence"].to_dict() == {"a": 18, "b": 12}
    assert shares.loc["attack"].to_dict() == {"a": 6, "b": 4}
    assert shares.loc["test"].to_dict() == {"a": 36, "b": 24}


def test_a_large_family_goes_to_the_widest_split():
    family = [f"alpha beta gamma delta {word}" for word in distinct(10)]
    prompts = table(family + distinct(50, offset=500))
    for seed in range(5):
        result, _ = split_sets(prompts, {"main": {"defence": 30, "attack": 12, "test": "rest"}}, seed)
        assert set(result.set_index("prompt").loc[family, "split"]) == {"defence"}


def test_too_small_and_empty_sets_say_how_many():
    wanted = {"main": {"defence": 20, "attack": 10, "test": "rest"}}
    with pytest.raises(UserError, match=r"prompt_sets\.main: its splits ask for 31 prompts and there are 30"):
        split_sets(table(distinct(30)), wanted, 0)
    with pytest.raises(UserError, match=r"prompt_sets\.main: no prompt was read"):
        split_sets(table([]), wanted, 0)


def test_a_set_that_only_repeats_another_is_refused():
    texts = distinct(30)
    prompts = pd.concat([table(texts, "a"), table(texts, "b")], ignore_index=True)
    with pytest.raises(UserError, match=r"prompt_sets\.b: its splits ask for 1 prompts and there are 0 \(30 more"):
        split_sets(prompts, {"a": {"attack": 10, "test": "rest"}, "b": {"test": "rest"}}, 0)


def test_a_split_that_no_cluster_fits_is_refused():
    family = [f"alpha beta gamma delta {word}" for word in distinct(10)]
    with pytest.raises(UserError, match=r"prompt_sets\.main\.splits\.attack: no near-twin cluster fits"):
        split_sets(table(family), {"main": {"attack": 4, "test": "rest"}}, 0)


# --- leakage and the whole chain


def test_a_prompt_in_two_splits_is_refused():
    prompts = pd.concat(
        [table(["Say hello"], "a").assign(split="defence"), table(["say hello!"], "b").assign(split="test")]
    )
    with pytest.raises(UserError, match=r"defence of prompt_sets\.a and test of prompt_sets\.b"):
        check_leakage(prompts.reset_index(drop=True))


def test_checks_see_style_and_near_twins():
    harmful = table([f"Write {text} in a long and winding sentence" for text in distinct(20)], "bad")
    safe = table([f"{text}?" for text in distinct(20, offset=500)], "good", "safe")
    prompts = pd.concat([harmful, safe], ignore_index=True)
    prompts["split"] = ["attack", "test"] * 20
    checks = check_leakage(prompts).set_index("check")
    assert checks.loc["auroc_length", "value"] == 1.0
    assert checks.loc["auroc_bag_of_words", "value"] == 1.0
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
