"""The config: every file of the study reads, and what a study makes of its rows."""

import copy
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest
import yaml
from configs import BASE, ROOT, RUBRIC, SFT, ZOO, changed, load
from hypothesis import given
from hypothesis import strategies as st

from es2.config import check_files, merged, read_study, results_folder, schema
from es2.errors import UserError
from es2.registry import AT_LAYERS, TERMS
from es2.settings.study import Config
from es2.study import without_zeros

FILES = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    return load("config.yaml")


@pytest.mark.parametrize("name", FILES)
def test_every_config_file_reads(name):
    study = read_study(load("config.yaml", name))
    check_files(study)
    for run in {run for scope in study.scopes for run in study.runs(scope)}:
        if study.trained(run):
            assert study.training(run)["batch"]


def test_the_benchmarks_are_test_sets_at_commits_and_the_direct_request_asks_each():
    study = read_study(load("config.yaml", "benchmarks.yaml"))
    added = load("benchmarks.yaml")
    for name, row in added["sources"].items():
        assert row["kind"] in ("hub", "github")
        assert "sha256" in row or name == "sorry_bench"
    assert study.config.bundles["direct"].benchmarks.keys() == set(study.config.select.prompt_sets)
    assert {name: list(row["splits"]) for name, row in added["prompt_sets"].items()} == {
        name: ["test"] for name in added["sources"]
    }
    for run in {run for scope in study.scopes for run in study.runs(scope)}:
        assert not study.trained(run) or not set(study.training(run)["batch"]) & set(added["prompt_sets"])


def test_the_papers_study_starts_from_models_as_shipped_and_its_benchmarks_are_the_rows_of_benchmarks():
    study = read_study(load("config.yaml", "paper.yaml"))
    config, paper, added = study.config, load("paper.yaml"), load("benchmarks.yaml")
    assert config.select.models == list(paper["models"])
    assert {row["format"] for row in paper["models"].values()} == {"hub"}
    assert study.parent(config.report.main) == study.parent(config.report.control) == config.report.parent == "base"
    assert study.fixes_budgets("scav_adaptive", "base")
    assert "base" in study.bundle_runs("scav_adaptive")
    for part in ("sources", "prompt_sets"):
        rows = {name: row for name, row in paper[part].items() if name != "gcg_llama2"}
        assert rows == {name: added[part][name] for name in rows}
    assert "sha256" in paper["sources"]["gcg_llama2"]
    es2, hold = study.training("es2_on_base"), study.training("hold_on_base")
    assert (es2["separation"].pop("weight"), hold["separation"].pop("weight")) == (1.0, 0.0)
    assert es2 == hold


@pytest.mark.parametrize(("sweep", "files"), [("contest", []), ("contest_each", ["examples/weaker_attackers.yaml"])])
def test_a_released_contests_attacks_are_those_of_the_config_that_its_page_names(sweep, files):
    """All attacks are as released, but for newer keys: as the default has them, or with two of them set back."""
    attacks = load("config.yaml", *files)["attacks"]
    table = pd.read_csv(ROOT / f"docs/reference/{sweep}/settings.csv", keep_default_na=False)
    released = table[(table["run"] == "") & (table["attack"] != "")]
    assert {"ablation", "soft_prompt", "addition", "scav_adaptive"} <= set(released["attack"])
    for row in released.itertuples():
        value = attacks[row.attack]
        for key in row.key.split("."):
            value = value[key]
        assert str(value) == str(yaml.safe_load(row.value)), (row.attack, row.key)
    assert (attacks["ablation"]["search"]["positions"] == 1) == bool(files)
    assert (attacks["soft_prompt"]["target_tokens"] is None) == bool(files)


def test_the_examples_are_studies(tiny_folders, monkeypatch):
    monkeypatch.chdir(ROOT)
    model = read_study(load("config.yaml", "examples/own_model.yaml"))
    assert model.config.select.models == ["mine"]
    with pytest.raises(UserError, match=r"models\.mine\.path: there is no folder path/to/your/model"):
        check_files(model)
    here = {"models": {"mine": {"path": str(tiny_folders["llama"])}}, "select": {"models": ["smollm2_135m", "mine"]}}
    both = read_study(merged(load("config.yaml", "examples/own_model.yaml"), here))
    check_files(both)
    assert both.row("es2", "mine", 0) == {**both.row("es2", "smollm2_135m", 0), "model": "mine"}
    refusing = read_study(load("config.yaml", "examples/own_model.yaml", "examples/refuses_already.yaml"))
    assert refusing.runs() == ["base", "hold", "es2"]
    assert {refusing.parent("hold"), refusing.parent("es2"), refusing.config.report.parent} == {"base"}
    assert refusing.fixes_budgets("scav_adaptive", "base")
    assert "base" in refusing.bundle_runs("scav_adaptive")
    second = read_study(load("config.yaml", "second_model.yaml"))
    check_files(second)
    assert (second.models(), second.runs()) == (["qwen_coder_1_5b"], ["base", "hold", "es2"])
    assert second.config.report.parent == "base"
    assert {second.parent("hold"), second.parent("es2")} == {"base"}
    assert "base" in second.bundle_runs("scav_adaptive")
    defence = read_study(load("config.yaml", "examples/own_defence.yaml"))
    assert defence.runs() == ["base", "refusal_sft", "hold", "es2", "mine"]
    assert (defence.external("mine"), defence.finetuned("mine"), defence.seeds("mine")) == (True, False, [0])
    with pytest.raises(UserError, match=r"sources\.mine_config\.path: there is no file"):
        check_files(defence)
    attack = read_study(load("config.yaml", "examples/own_attack.yaml"))
    check_files(attack)
    assert attack.bundle_runs("mine") == ["refusal_sft", "hold", "es2"]
    judge = read_study(load("config.yaml", "examples/rubric_judge.yaml"))
    check_files(judge)
    assert (judge.config.select.judges, judge.judging("rubric")) == (["keyword", "rubric"], "qwen_coder_1_5b")


def test_the_schema_file_is_the_models():
    assert (ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8") == schema()


def test_the_readme_explains_every_key():
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    names = {
        key
        for row in [Config.model_json_schema(), *Config.model_json_schema()["$defs"].values()]
        for key in row.get("properties", {})
    }
    assert not sorted(name for name in names if name not in text)


def test_yaml_reads_the_key_on_as_true_and_the_study_does_not(default):
    assert True in default["runs"]["es2"]
    assert read_study(default).parent("es2") == "refusal_sft"


def test_overrides_merge_and_lists_replace(default):
    runs = {"base": BASE, "refusal_sft": SFT, "hold": default["runs"]["hold"]}
    separation = {"layers": [3], "distance": "centroid"}
    es2 = {"method": "es2", "on": "refusal_sft", "training": {"separation": separation, "batch": {"plain": 0}}}
    sweeps = {"trials": {"runs": ["es2"], "bundles": ["validation", "trial"]}}
    trials = {**default["trials"], "sweeps": ["trials"]}
    alone = {"comparison": {**default["comparison"], "pairs": []}}
    study = read_study({**default, **alone, "sweeps": sweeps, "trials": trials, "runs": {**runs, "es2": es2}})
    settings = study.training("es2")
    assert settings["separation"] == {**study.training("hold")["separation"], **separation, "weight": 1.0}
    assert "plain" not in settings["batch"]
    assert settings["lora"] == study.training("hold")["lora"]


def test_the_layers_that_a_sweeps_runs_change_are_their_own_and_hold_changes_none(default):
    study = read_study(default)
    two = {"count": 2, "window": [0.57, 0.8], "gap": 0.1}
    assert study.changed_layers("layers_attacked") == {"es2_two": two, "es2_pairwise": "auto"}
    assert study.changed_layers("layers")["es2_l18"] == [18]
    assert list(study.changed_layers()) == ["es2"]
    assert set(TERMS) > AT_LAYERS


def test_runs_are_set_against_each_other_where_both_are_there(default):
    study = read_study(default)
    assert study.pairs() == []
    parts = ("", "_each", "_any", "_rivals", "_held", "_pairs")
    here, each, any_token, rivals, held, earlier = (study.pairs(f"contest{part}") for part in parts)
    assert len(here) > 2
    assert len(each) == 3
    assert len(any_token) == 3
    assert len(rivals) == 3
    assert len(held) == 1
    assert len(earlier) > 2
    assert sorted(here + each + any_token + rivals + held + earlier) == sorted(default["comparison"]["pairs"])
    assert study.report("smollm2_135m", "contest")["pairs"] == study.pairs("contest")


def test_parents_come_with_the_runs_selected(default):
    config = changed(default, "select/runs", ["es2"])
    assert read_study(config).runs() == ["base", "refusal_sft", "es2"]


def test_a_parent_is_a_run_that_another_starts_from(default) -> None:
    study = read_study(default)
    parents = ["base", "refusal_sft", "refusal_sft_r4", "refusal_sft_r64"]
    assert [run for run in default["runs"] if study.is_parent(run)] == parents


def test_untrained_runs_exist_once_and_trained_ones_at_every_seed(default):
    study = read_study(changed(default, "seeds", [3, 5]))
    assert [(row["run"], row["seed"]) for row in study.rows(runs=["base", "es2"])] == [
        ("base", 0),
        ("es2", 3),
        ("es2", 5),
    ]
    assert study.seed("base", 5) == 0
    assert study.seed("es2", 5) == 5


def test_each_model_is_attacked_once_by_a_run(default):
    study = read_study(default)
    assert study.fitted_on("scav", "es2") == {"self": "es2", "base": "base", "parent": "refusal_sft"}
    assert study.fitted_on("scav", "refusal_sft") == {"self": "refusal_sft", "base": "base"}
    assert study.fitted_on("scav", "base") == {"self": "base"}
    assert study.fitted_on("direct", "es2") == {}
    assert study.fitted_on("ablation_parent", "es2") == {"parent": "refusal_sft"}
    assert study.fitted_on("ablation_base", "refusal_sft") == {"base": "base"}
    assert study.fitted_on("ablation_parent", "refusal_sft") == study.fitted_on("ablation_base", "base") == {}
    assert study.bundle_runs("scav_adaptive") == ["refusal_sft", "hold", "es2"]


def test_who_is_attacked_as_fitted_on_another_model(default):
    study = read_study(default)
    assert study.bundle_runs("ablation_parent", "transfer_ablation") == ["es2"]
    assert study.bundle_runs("ablation_base", "transfer_ablation") == ["refusal_sft", "es2"]
    told = {name: study.adapts(name) for name in ("ablation", "ablation_parent", "soft_prompt", "scav", "direct")}
    assert [name for name, adapts in told.items() if adapts] == ["ablation", "soft_prompt"]
    assert study.fixes_budgets("addition", "refusal_sft")
    assert not study.fixes_budgets("addition_parent", "refusal_sft")
    everyone = {**default["bundles"]["addition_base"], "runs": "all"}
    changed = read_study({**default, "bundles": {**default["bundles"], "addition_base": everyone}})
    assert changed.bundle_runs("addition_base", "transfer_addition") == ["refusal_sft", "es2"]


def test_hold_and_es2_differ_in_the_separation_weight_alone(default):
    study = read_study(default)
    hold, es2 = study.training("hold"), study.training("es2")
    assert hold["separation"].pop("weight") == 0
    assert es2["separation"].pop("weight") > 0
    assert hold == es2


def test_the_keyword_judge_is_told_by_its_kind_alone(default):
    """It is a parameter of the answers' rule: another key would answer everything anew."""
    assert read_study(default).config.judges["keyword"].model_dump() == {"kind": "keyword"}


def test_a_judges_model_comes_with_it_and_a_judge_of_harm_is_shown_harmful_sets(default):
    config = changed(default, "judges/r", {**RUBRIC, "model": "other"})
    config["judges"]["z"] = ZOO
    config["models"]["other"] = config["models"]["smollm2_135m"]
    assert read_study(config).loaded_models() == ["smollm2_135m"]
    study = read_study(changed(config, "select/judges", ["keyword", "r", "z"]))
    assert study.loaded_models() == ["smollm2_135m", "other"]
    assert [study.judging(name) for name in ("keyword", "r", "z")] == [None, "other", None]
    assert study.judged_sets("r") == list(study.sets())
    assert study.judged_sets("z") == study.sets_of("harmful") != list(study.sets())


def test_the_results_folder_is_the_studys():
    files = [str(ROOT / "config" / name) for name in ("config.yaml", "smoke.yaml")]
    assert results_folder(files) == "results/smoke"


def test_reading_a_config_imports_nothing_heavy():
    heavy = "torch", "transformers", "pandas", "numpy", "datasets", "sklearn"
    code = f"import sys, es2.config, es2.fingerprint, es2.scripting; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


trees = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_merging_keeps_every_override_and_changes_no_argument(settings, overrides):
    before = copy.deepcopy((settings, overrides))
    result = merged(settings, overrides)
    assert merged(result, overrides) == result
    assert set(result) == set(settings) | set(overrides)
    assert (settings, overrides) == before


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 2) | st.just("all")))
def test_zeros_leave_a_set_out(sizes):
    assert 0 not in without_zeros(sizes).values()
    assert without_zeros(sizes).items() <= sizes.items()
