"""The page of the bench, the formulas behind its computed table, and what is timed of the graph."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench import graph, growth, memory, page, study
from bench.extraction import least_flop
from bench.goals import GOALS, GRAPH_GOALS
from bench.measure import COLUMNS
from bench.repository import ROOT, copy_repository
from bench.scene import QWEN_HALF_BILLION, tiny
from es2.batching import shared_head
from es2.files import write_csv, write_json


@pytest.fixture
def measured(tmp_path):
    """A folder with the files of a bench."""
    rows = [(*key, "cpu", "tiny", 4.0, 3.5, 4.25, 1.5, 6.0, 0.7 if key[0] == "extraction" else None) for key in GOALS]
    write_csv(pd.DataFrame(rows, columns=list(COLUMNS)), tmp_path / "bench.csv")
    write_csv(
        pd.DataFrame([(key, 2.5, "all") for key in GRAPH_GOALS], columns=list(graph.COLUMNS)), tmp_path / "graph.csv"
    )
    write_csv(pd.DataFrame([(100_000, 500.4, 49.0, 30.0)], columns=list(memory.COLUMNS)), tmp_path / "memory.csv")
    about = {"threads": 2, "processor": "x86_64", "cuda": None, "torch": "9", "transformers": "8"}
    write_json(tmp_path / "bench.json", about)
    return tmp_path


def test_the_page_is_filled_in_place_and_again(measured):
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    copy = measured / "page.md"
    copy.write_text(text, encoding="utf-8")
    for _ in range(2):
        assert page.main(["--results", str(measured), "--page", str(copy)]) == 0
        filled = copy.read_text(encoding="utf-8")
        assert (
            "| extraction | one_prompt_at_a_time | tiny, cpu | 4.00 [3.50, 4.25] | ≥ 4, ≥ 65% of the limit |" in filled
        )
        assert "| scav_generation | plain_generation | tiny, cpu | 4.00 [3.50, 4.25] | ≤ 1.15 | 1.5 | 6 |  |" in filled
        assert "| no change | all | 2.5 | ≤ 15 |" in filled
        assert "| model start | all | 2.5 |  |" in filled
        assert (
            "imports and loading take" in filled.partition("<!-- graph:start -->")[2].partition("<!-- graph:end -->")[0]
        )
        assert "| 100,000 | 500 | 49.0 | 30.0 |" in filled
        assert "2 threads, x86_64, torch 9, transformers 8." in filled
        assert "Not measured" not in filled
        assert filled.partition("<!-- bench:start -->")[0] == text.partition("<!-- bench:start -->")[0]


def test_what_was_not_measured_or_has_no_place_is_one_sentence(measured, capsys):
    copy = measured / "page.md"
    copy.write_text("no marks", encoding="utf-8")
    assert page.main(["--results", str(measured), "--page", str(copy)]) == 1
    assert "the marks <!-- bench:start --> and <!-- bench:end --> are missing" in capsys.readouterr().err
    (measured / "graph.csv").unlink()
    assert page.main(["--results", str(measured), "--page", str(copy)]) == 1
    assert "graph.csv; run make bench, or python -m bench.graph" in capsys.readouterr().err
    assert copy.read_text(encoding="utf-8") == "no marks"


def test_the_released_page_shows_what_the_formulas_give_and_what_was_measured_beside_them():
    text = (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert page.markdown(growth.table()) in text
    assert page.between(text, "growth", page.markdown(growth.table())) == text
    assert page.between(text, "points", page.points_table(pd.read_csv(page.POINTS))) == text


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("SmolLM2-135M", 0.1345),
        ("Qwen2.5-0.5B", 0.494),
        ("Llama-2-7B", 6.738),
        ("Llama-3.1-8B", 8.030),
        ("Qwen2.5-32B", 32.76),
        ("Llama-3.1-70B", 70.55),
    ],
)
def test_the_shapes_have_the_weights_that_their_authors_tell(name, billions):
    shape = next(one for one in growth.SHAPES if one.name == name)
    assert shape.weights / 1e9 == pytest.approx(billions, rel=2e-3)


def test_the_larger_model_is_the_shape_of_its_name():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **QWEN_HALF_BILLION))
    blocks = sum(weight.numel() for weight in model.model.layers.parameters() if weight.ndim == 2)
    assert blocks == next(one for one in growth.SHAPES if one.name == "Qwen2.5-0.5B").block_weights


def test_the_limit_of_extraction_is_the_formula(load_model):
    lm = load_model()
    prompts = ["Bake bread", "Write a letter to the council", "Hi"]
    sequences = lm.chat_tokens(prompts)
    head = shared_head(sequences)
    shape = growth.Shape("tiny", 4, 32, 48, 4, 2, 8, lm.n_tokens)
    each = [growth.extraction(shape, 1, 0, len(tokens) - head) for tokens in sequences]
    assert least_flop(lm, prompts) == growth.extraction(shape, 0, head) + sum(each)


def test_costs_add_up_over_prompts_and_runs():
    shape = growth.SHAPES[0]
    assert growth.extraction(shape, 20) - growth.extraction(shape, 10) == pytest.approx(
        growth.extraction(shape, 10) - growth.extraction(shape, 0)
    )
    assert growth.naive_extraction(shape, 100) > 2 * growth.extraction(shape, 100)
    assert growth.naive_step(shape, 16) > 10 * growth.step(shape, 16)
    assert growth.answers(shape, 10, length=0) == growth.extraction(shape, 10)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    copy_repository(folder)
    return folder


def test_a_grown_study_is_planned(repository):
    (what, seconds, detail), more = (graph.plan(repository, runs, 1) for runs in (0, 3))
    assert what == "plan"
    assert seconds > 0
    grown = int(more[2].split()[0]) - int(detail.split()[0])
    assert grown > 0
    assert grown % 3 == 0


def test_scripts_that_need_no_model(repository):
    names = {script.stem for script in graph.light_scripts(repository)}
    assert {"collect_dsr", "plot_robustness", "write_findings", "prepare_prompts"} <= names
    assert not {"finetune", "generate_answers", "extract_embeddings", "convert_model"} & names
    what, seconds, slowest = graph.script_start([repository / "workflow/scripts/collect_dsr.py"])
    assert (what, slowest) == ("script_start", "collect_dsr")
    assert seconds > 0


def test_a_second_run_that_does_something_is_an_error(monkeypatch, tmp_path):
    said = ["90 of 90 steps (100%) done\n", "Nothing to be done (all requested files are present).\n"]

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 0, stdout="", stderr=left.pop(0))

    monkeypatch.setattr(graph, "snakemake", run)
    left = list(said)
    what, _, detail = graph.no_change(tmp_path)
    assert (what, detail) == ("no_change", "90 jobs")
    left = [said[0], said[0]]
    with pytest.raises(AssertionError, match="90 of 90"):
        graph.no_change(tmp_path)


def test_the_released_page_shows_the_released_costs():
    cost, text = pd.read_csv(page.COST), (ROOT / page.PAGE).read_text(encoding="utf-8")
    assert page.between(text, "study", f"{page.markdown(study.rows(cost))}\n\n{study.told(cost)}") == text


def test_minutes_are_of_the_whole_machine():
    jobs = [("finetune", "tiny/es2/s0", 600), ("generate_answers", "tiny/es2/s0/scav_adaptive", 1800)]
    jobs += [("generate_answers", "tiny/es2/s0/direct", 120), ("prepare_prompts", "all", 60)]
    cost = pd.DataFrame(jobs, columns=["rule", "job", "seconds"])
    table = {row[0]: row[1:3] for row in study.rows(cost)[1:]}
    assert table["adaptive SCAV"] == ["1", "15.0"]
    assert table["fine-tuning"] == ["1", "10.0"]
    assert table["direct request"] == ["1", "1.0"]
    assert table["all others"] == ["1", "0.5"]
    assert table["together"] == ["4", "26.5"]
    assert "For 20, 6.5 would have to go: adaptive SCAV (15.0), which leaves 11.5." in study.told(cost)
    assert study.told(cost.head(1)) == "Packed without a gap that is 10.0 minutes, within the 20 wanted."


def test_the_share_of_loading_is_of_all_jobs_seconds():
    jobs = [("finetune", 600), ("generate_answers", 300), ("collect_dsr", 90), ("plot_dsr", 10)]
    starts = pd.DataFrame([("script_start", 2.0), ("model_start", 38.0)], columns=["what", "seconds"])
    told = study.loading(pd.DataFrame(jobs, columns=["rule", "seconds"]), starts)
    assert "2 jobs load a model and 2 do not" in told
    assert "take 1.3 of the 17 minutes of all its jobs, 8%; the goal is at most 15%" in told


def test_a_model_is_loaded_in_its_own_process(repository, tmp_path):
    tiny(tmp_path / "model", "cpu")
    what, seconds, script = graph.model_start(repository, tmp_path / "model")
    assert (what, script) == ("model_start", "generate_answers")
    assert seconds > 0
    with pytest.raises(AssertionError, match=r"there is no config\.json"):
        graph.model_start(repository, tmp_path / "none")


def test_the_rules_that_load_a_model_are_those_whose_scripts_do(repository):
    scripts = (repository / "workflow/scripts").glob("*.py")
    assert {one.stem for one in scripts if "load_run(" in one.read_text()} | {"merge_adapter"} == study.LOADING_RULES
