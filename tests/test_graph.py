"""The graph: it builds for every config, and its rules are complete."""

import re

import pytest
import yaml

from bench.repository import ROOT, copy_repository, jobs, snakemake
from es2.plan import local_rules, read

RULES = [
    (path.name, text)
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for text in re.split(r"^(?=rule \w+:)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
]
WORKERS = [text for name, text in RULES if name != "milestones.smk"]
HOLD_A_MODEL = {
    "extract_embeddings",
    "record_reference",
    "finetune",
    "generate_answers",
    "measure_drift",
    "run_lm_eval",
    "merge_adapter",
}


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """A clean copy of the repository for dry runs."""
    folder = tmp_path_factory.mktemp("dry")
    copy_repository(folder)
    return folder


def test_the_default_study_is_the_size_that_it_says(dry):
    counts = jobs(snakemake(dry, "-n"))
    assert counts["finetune"] == 3
    assert counts["extract_embeddings"] == counts["measure_separability"] == counts["measure_drift"] == 4
    assert counts["generate_answers"] == counts["judge_answers"] == 11
    assert counts["record_reference"] == 2
    assert counts["merge_adapter"] == 1


@pytest.mark.parametrize("config", ["full", "smoke", "benchmarks"])
def test_the_graph_of_every_variant_builds(dry, config):
    assert jobs(snakemake(dry, "-n", "--configfile", f"config/{config}.yaml"))["all"] == 1


def test_the_papers_study_is_planned_whole_with_what_its_jobs_ask_for(dry):
    targets = ("all", "paper_loss", "model_llama3_8b_instruct")
    done = snakemake(dry, "-n", "--configfile", "config/paper.yaml", "--", *targets)
    counts, rules = jobs(done), read((done.stdout + done.stderr).splitlines())
    assert all(counts[name] == 1 for name in targets)
    assert (counts["fetch_model"], counts["convert_model"], counts["fetch_task"]) == (4, 4, 6)
    # Four models, three seeds: hold and es2 on base, refusal_sft, hold and es2 on it, and the sweep's plain distance.
    assert counts["finetune"] == rules["finetune"].jobs == 4 * 3 * 6
    submitted = set(rules) - local_rules(dry / "workflow/rules")
    assert submitted == {*HOLD_A_MODEL, "convert_model", "measure_separability"}
    assert {name for name, asked in rules.items() if asked.gpu_minutes} == HOLD_A_MODEL
    # In bfloat16 a model of 8 billion parameters weighs 16 GB, in float32 32 GB; a job may not last a day.
    assert all(rules[name].memory_mb > 2 * 16000 for name in HOLD_A_MODEL)
    assert rules["merge_adapter"].memory_mb > 2 * 32000
    assert all(rules[name].minutes / rules[name].jobs < 24 * 60 for name in submitted)
    assert rules["merge_adapter"].disk_mb > 12 * 26000


def test_the_cluster_profile_plans_the_same_jobs(dry):
    smoke = ("-n", "--configfile", "config/smoke.yaml")
    assert jobs(snakemake(dry, *smoke, "--workflow-profile", "profiles/slurm")) == jobs(snakemake(dry, *smoke))


def test_a_study_on_a_cpu_asks_for_no_gpu(dry):
    rules = read(snakemake(dry, "-n").stdout.splitlines())
    assert set(rules) >= HOLD_A_MODEL
    assert not any(asked.gpu_minutes for asked in rules.values())
    assert max(asked.memory_mb for asked in rules.values()) < 8000


@pytest.mark.parametrize(
    ("models", "files", "expected"),
    [
        (["mine"], ["own_model"], {"convert_model": 1, "finetune": 3, "record_reference": 2, "fetch_source": 7}),
        (["smollm2_135m", "mine"], ["own_model"], {"convert_model": 2, "finetune": 6, "fetch_source": 8}),
        (["mine"], ["own_model", "refuses_already"], {"finetune": 2, "record_reference": 1, "extract_embeddings": 3}),
    ],
    ids=["alone", "beside the default", "refuses already"],
)
def test_a_local_model_has_the_graph_of_the_default_study(dry, tiny_folders, tmp_path, models, files, expected):
    mine = {"select": {"models": models}, "models": {"mine": {"path": str(tiny_folders["qwen2"])}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    laid = [f"config/examples/{name}.yaml" for name in files]
    counts = jobs(snakemake(dry, "-n", "--configfile", *laid, str(tmp_path / "mine.yaml")))
    assert {rule: counts[rule] for rule in expected} == expected


def test_a_judge_that_asks_a_model_brings_its_model_and_leaves_the_keyword_judge_alone(dry):
    counts = jobs(snakemake(dry, "-n", "--configfile", "config/examples/rubric_judge.yaml"))
    assert counts["judge_answers"] == counts["ask_judge"] == 11
    assert (counts["convert_model"], counts["collect_judges"]) == (2, 1)
    (dry / "judges.yaml").write_text(
        "select: {judges: [keyword, other]}\n"
        "models: {larger: {format: hub, repo: a/b, revision: " + "a" * 40 + ", system_prompt: none, dtype: bfloat16}}\n"
        "judges: {other: {kind: rubric, level: useful, model: larger, max_new_tokens: 9, batch_rows: 2}}\n"
    )
    counts = jobs(snakemake(dry, "-n", "--configfile", "judges.yaml"))
    assert (counts["convert_model"], counts["extract_embeddings"]) == (2, 4)


def test_the_second_model_is_trained_as_shipped(dry):
    counts = jobs(snakemake(dry, "-n", "--configfile", "config/second_model.yaml"))
    assert (counts["convert_model"], counts["finetune"], counts["generate_answers"]) == (1, 2, 6)
    assert counts["merge_adapter"] == 0


def test_a_sweep_trains_its_own_runs_only(dry):
    counts = jobs(snakemake(dry, "-n", "dose_response"))
    assert counts["finetune"] == 7
    assert counts["run_lm_eval"] == 0


def test_a_sweep_with_ability_draws_the_pareto_figure(dry):
    counts = jobs(snakemake(dry, "-n", "contest"))
    assert counts["run_lm_eval"] == counts["measure_drift"] > 0
    assert counts["plot_pareto"] == 1


def test_a_sweep_with_an_ablation_tells_where_it_turns_each_trained_run(dry):
    counts = jobs(snakemake(dry, "-n", "attacks"))
    assert counts["measure_turning"] == counts["finetune"] == 3
    assert counts["collect_directions"] == counts["plot_turning"] == 1


def test_every_run_of_a_contest_competes_in_its_finals(dry):
    said = snakemake(dry, "-n", "contest").stdout
    listed = re.split(r"\n(?=rule |localrule )", said)
    (finals,) = (job for job in listed if re.match(r"(local)?rule collect_finals:", job))
    runs = ("refusal_sft", "es2", "adversarial_wide", "es2_adversarial_wide")
    for attack in ("scav_adaptive", "addition"):
        assert [run for run in runs if f"/{run}/s0/answers/{attack}.search.csv" not in finals] == []


@pytest.mark.parametrize(("edits", "asked"), [(["push", "soft_prompt"], True), (["push"], False)])
def test_a_training_under_a_soft_prompt_reads_what_it_is_to_bring_out(dry, tmp_path, edits, asked):
    training = {"adversarial": {"edits": edits}, "separation": {"weight": 0.0}}
    config = {
        "runs": {"mine": {"method": "adversarial", "on": "refusal_sft", "training": training}},
        "select": {"runs": ["base", "es2", "mine"]},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    said = snakemake(dry, "-n", "--configfile", "config/smoke.yaml", str(tmp_path / "mine.yaml")).stdout
    trained = next(job for job in re.split(r"\n(?=rule |localrule )", said) if "/mine/s0/adapter/adapter_model" in job)
    assert ("base/s0/reference/answers.jsonl" in trained) is asked


def test_every_milestone_is_a_target(dry):
    done = snakemake(dry, "--list-target-rules")
    said = (done.stdout + done.stderr).split()
    milestones = [
        "separability",
        "training",
        "evaluation",
        "tables",
        "figures",
        "dose_response",
        "trials",
        "layers",
        "ablations",
        "no_system_prompt",
        "contest",
        "methods",
        "model_smollm2_135m",
    ]
    assert not [name for name in milestones if name not in said]


def test_the_rulegraph_is_drawn(dry):
    assert "digraph" in snakemake(dry, "--rulegraph").stdout


def test_a_mistake_in_the_config_is_one_sentence_without_traceback(dry):
    (dry / "mine.yaml").write_text("training: {step: 3}\n")
    done = snakemake(dry, "-n", "--configfile", "mine.yaml")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "training.step: there is no such key; did you mean steps" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("text", WORKERS, ids=[text.partition(":")[0] for text in WORKERS])
def test_every_rule_is_complete(text):
    name = re.match(r"rule (\w+):", text)[1]
    for part in (
        "log:",
        "benchmark:",
        "threads:",
        "mem_mb=",
        "runtime=",
        f'code=code("{name}"',
        f"../scripts/{name}.py",
    ):
        assert part in text, f"{name} lacks {part}"
    assert re.match(r'rule \w+:\n    """[A-Z].+\."""\n', text), f"{name} has no docstring of one sentence or more"


def test_every_script_has_its_rule():
    names = {re.match(r"rule (\w+):", text)[1] for text in WORKERS}
    assert {path.stem for path in (ROOT / "workflow/scripts").glob("*.py")} == names


def test_answers_are_never_in_the_report():
    assert not [text for text in WORKERS if re.search(r"report\(\s*\"[^\"]*answers", text)]
