"""An edit reruns exactly what uses it, and every file has its chain of records.

Shown on a copy of the repository in which every script only writes its outputs, so that the whole smoke graph runs in
seconds, with the imports that the real scripts have.
"""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from bench.repository import copy_repository, jobs, snakemake, stub_scripts
from es2.provenance import main


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A copy in which the smoke graph has run, its scripts reduced to their imports."""
    folder = tmp_path_factory.mktemp("ran")
    copy_repository(folder)
    stub_scripts(folder)
    done = snakemake(folder, "--configfile", "config/smoke.yaml")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture
def edit(ran):
    """Edit a module of the copy for one test."""
    before: dict[Path, bytes] = {}

    def change(module: str, line: str) -> None:
        path = ran / module
        before[path] = path.read_bytes()
        path.write_text(path.read_text() + line)

    yield change
    for path, content in before.items():
        path.write_bytes(content)


def again(folder: Path) -> tuple[Counter[str], str]:
    """The jobs that a second run would do, and what it says of them."""
    done = snakemake(folder, "-n", "--configfile", "config/smoke.yaml")
    return jobs(done), done.stdout + done.stderr


def own_reason(said: str) -> set[tuple[str, str, str]]:
    """Rule, run and bundle of the jobs that run because their own parameters changed."""
    blocks = re.split(r"\n(?=\[)", said.partition("Job stats:")[2])
    changed = [block for block in blocks if "Params have changed" in block and "wildcards:" in block]
    found = set()
    for block in changed:
        values = dict(re.findall(r"(\w+)=([^,\s]+)", block.partition("wildcards:")[2].partition("\n")[0]))
        name = re.search(r"rule (\w+):", block)
        assert name is not None
        found.add((name[1], values.get("run", ""), values.get("bundle", "")))
    return found


def test_a_second_run_has_nothing_to_do(ran):
    assert "Nothing to be done" in again(ran)[1]


def test_every_job_leaves_a_record_and_the_chain_of_a_card_is_whole(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran)
    assert len(list(ran.rglob("provenance/**/*.json"))) == len(list(ran.glob("logs/**/*.log"))) > 50
    assert main(["results/smoke"]) == 0
    capsys.readouterr()
    assert main(["results/smoke/models/tiny/es2/s0/merged/README.md"]) == 0
    chain = capsys.readouterr().out
    for rule in ("write_card", "finetune", "generate_answers", "convert_model", "prepare_prompts", "fetch_source"):
        assert f" <- {rule}" in chain
    assert "es2/prompts/bundled/refusals.jsonl: ok, a source" in chain


def test_a_tampered_file_in_the_middle_is_named(ran, edit, monkeypatch, capsys):
    monkeypatch.chdir(ran)
    middle = "results/smoke/models/tiny/refusal_sft/s0/layers.json"
    edit(middle, "!")
    assert main(["results/smoke/models/tiny/es2/s0/merged/README.md"]) == 1
    assert f"CHANGED: {middle}" in capsys.readouterr().out.splitlines()[-1]


def test_an_edit_around_the_jobs_reruns_nothing(ran, edit):
    for module in ("es2/records.py", "es2/provenance.py", "es2/scripting.py", "es2/progress.py"):
        edit(module, "\nEDITED = 1\n")
    assert "Nothing to be done" in again(ran)[1]


def test_a_comment_reruns_nothing(ran, edit):
    for module in ("es2/losses/separation.py", "es2/models.py", "es2/plots/style.py", "es2/scripting.py"):
        edit(module, "\n# a comment\n")
    assert "Nothing to be done" in again(ran)[1]


def test_an_edit_of_a_plot_reruns_that_plot_alone(ran, edit):
    edit("es2/plots/robustness.py", "\nEDITED = 1\n")
    assert set(again(ran)[0]) == {"plot_robustness", "all"}


def test_an_edit_of_the_separation_loss_retrains_es2_and_never_touches_the_base(ran, edit):
    edit("es2/losses/separation.py", "\nEDITED = 1\n")
    counts, said = again(ran)
    assert own_reason(said) == {("finetune", "es2", "")}
    assert counts["extract_embeddings"] == counts["measure_separability"] == counts["finetune"] == 1
    assert counts["record_reference"] == counts["convert_model"] == counts["prepare_prompts"] == 0


def test_an_edit_of_one_attack_reruns_that_attack(ran, edit):
    edit("es2/attacks/scav_adaptive.py", "\nEDITED = 1\n")
    changed = own_reason(again(ran)[1])
    assert changed == {("generate_answers", run, "scav_adaptive") for run in ("refusal_sft", "es2")}


def test_a_changed_setting_reruns_what_reads_it(ran):
    (ran / "mine.yaml").write_text("runs: {es2: {training: {steps: 7}}}\n")
    done = snakemake(ran, "-n", "--configfile", "config/smoke.yaml", "mine.yaml")
    counts = jobs(done)
    assert counts["finetune"] == 1
    assert counts["prepare_prompts"] == 0


def test_another_dtype_loads_the_same_converted_model(ran):
    (ran / "half.yaml").write_text("models: {tiny: {dtype: bfloat16}}\n")
    counts = jobs(snakemake(ran, "-n", "--configfile", "config/smoke.yaml", "half.yaml"))
    assert counts["convert_model"] == 0
    assert counts["extract_embeddings"] > 0
    assert counts["finetune"] > 0


def test_what_jobs_ask_for_reruns_nothing(ran):
    (ran / "larger.yaml").write_text("gpus: 1\nmodels: {tiny: {billions: 70}}\n")
    done = snakemake(ran, "-n", "--configfile", "config/smoke.yaml", "larger.yaml")
    assert "Nothing to be done" in done.stdout + done.stderr


def test_an_edit_of_a_bundled_file_is_noticed(ran, edit):
    edit("es2/prompts/bundled/refusals.jsonl", '{"text": "I would rather not."}\n')
    counts = again(ran)[0]
    assert counts["fetch_source"] == 1
    assert counts["prepare_prompts"] == 0


def test_an_edit_of_a_script_reruns_its_jobs(ran, edit):
    edit("workflow/scripts/plot_robustness.py", "\nEDITED = 1\n")
    assert set(again(ran)[0]) == {"plot_robustness", "all"}


def test_an_edit_of_a_local_model_under_the_same_path_is_noticed(ran, tiny_folders, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_folders["llama"], model)
    row = {"format": "folder", "path": str(model), "system_prompt": "template", "dtype": "float32"}
    (ran / "mine.yaml").write_text(yaml.safe_dump({"select": {"models": ["mine"]}, "models": {"mine": row}}))
    target = ["resources/models/mine/manifest.json", "--configfile", "config/smoke.yaml", "mine.yaml"]
    assert snakemake(ran, *target).returncode == 0
    assert jobs(snakemake(ran, "-n", *target)) == {}
    for file in ("config.json", "model.safetensors"):
        before = (model / file).read_bytes()
        (model / file).write_bytes(before + b" ")
        assert jobs(snakemake(ran, "-n", *target))["convert_model"] == 1
        (model / file).write_bytes(before)
    assert jobs(snakemake(ran, "-n", *target)) == {}


def test_a_second_judge_reruns_no_answer_and_no_verdict_of_the_first(ran):
    (ran / "judges.yaml").write_text(
        "select: {judges: [keyword, other]}\n"
        "judges: {other: {kind: rubric, level: answer, model: tiny, max_new_tokens: 9, batch_rows: 2}}\n"
    )
    counts = jobs(snakemake(ran, "-n", "--configfile", "config/smoke.yaml", "judges.yaml"))
    assert counts["ask_judge"] == 8
    assert counts["generate_answers"] == counts["judge_answers"] == counts["finetune"] == counts["convert_model"] == 0


def test_an_edit_of_the_rubric_asks_no_keyword_judge(ran, edit):
    edit("es2/judges/rubric.py", "\nEDITED = 1\n")
    assert "Nothing to be done" in again(ran)[1]


def test_an_edit_of_how_judges_are_asked_judges_again(ran, edit):
    edit("es2/judges/registry.py", "\nEDITED = 1\n")
    assert jobs(snakemake(ran, "-n", "--configfile", "config/smoke.yaml"))["judge_answers"] > 0
