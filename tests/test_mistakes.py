"""Every mistake in a config ends in one sentence that names its key, before any job."""

from typing import Any

import pytest
from configs import BASE, DELETE, ENDPOINT, ODDS, RUBRIC, ZOO, changed, load

from es2.config import check_files, read_study
from es2.errors import UserError


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    return load("config.yaml")


PLAIN = {"system_prompt": "template", "dtype": "float32"}
MISTAKES = [
    # place, value, what the sentence says
    ("sede", [0], "sede: there is no such key; did you mean seeds"),
    ("training/step", 3, "training.step: there is no such key; did you mean steps"),
    ("runs/es2/training", {"learning_rat": 0.1}, "runs.es2.training.learning_rat: there is no such key"),
    ("training/learning_rate", "1e-5", "training.learning_rate: '1e-5' does not fit; give a number (YAML"),
    ("training/learning_rate", float("inf"), "training.learning_rate: inf does not fit; give a finite number"),
    ("training/learning_rate", float("nan"), "training.learning_rate: nan does not fit; give a finite number"),
    ("probes/p0", float("nan"), "probes.p0: nan does not fit; give a finite number"),
    ("training/steps", 4.5, "training.steps: 4.5 does not fit; give a whole number"),
    ("training/steps", True, "training.steps: True does not fit"),
    ("training/steps", -1, "training.steps: -1 does not fit; give a number at least 1"),
    ("training", [1], "training: [1] does not fit; give a mapping"),
    ("generation/max_new_tokens", "32", "generation.max_new_tokens: '32' does not fit; give a whole number"),
    ("training/separation/form", "bound", "training.separation.form: 'bound' does not fit; give 'plain'"),
    ("training/separation/layers", [-1], "training.separation.layers.0: -1 does not fit; give a number at least 0"),
    ("training/separation/layers", [1.5], "training.separation.layers.0: 1.5 does not fit"),
    (
        "training/separation/layers",
        "all",
        "training.separation.layers: 'all' does not fit; give 'auto' or a mapping or a",
    ),
    (
        "training/separation/layers",
        {"count": 2, "window": [0.3, 0.8]},
        "training.separation.layers.gap: this key is missing",
    ),
    ("probes/layers/gap", 4, "probes.layers.gap: 4 does not fit; give a number at most 1"),
    ("generation/backend", "tgi", "generation.backend: 'tgi' does not fit; give 'transformers' or 'vllm'"),
    ("training/lora/dropout", 1.0, "training.lora.dropout: 1.0 does not fit; give a number below 1"),
    ("probes/layers/window", [0.2], "probes.layers.window: it has 1 entries; give at least 2"),
    ("seeds", [], "seeds: it has 0 entries; give at least 1"),
    ("seeds", [0, 0], "seeds: a seed stands there twice"),
    ("select/runs", [], "select.runs: it has 0 entries"),
    (
        "select/models",
        ["smolm2_135m"],
        "select.models: there is no model 'smolm2_135m'; did you mean smollm2_135m",
    ),
    ("select/runs", ["base", "es3"], "select.runs: there is no run 'es3'; did you mean es2"),
    ("select/runs", ["es2", "es2"], "select.runs: 'es2' stands there twice"),
    ("select/bundles", ["scaw"], "select.bundles: there is no bundle 'scaw'; did you mean scav"),
    ("select/judges", ["llm"], "select.judges: there is no judge 'llm'; there are keyword"),
    ("select/prompt_sets", ["advbench"], "select.prompt_sets: no safe set has a split attack"),
    ("select/prompt_sets", ["plain", "advbensch"], "there is no prompt set 'advbensch'; did you mean advbench?"),
    ("runs/es2/method", "es3", "runs.es2.method: there is no method 'es3'; did you mean es2?"),
    ("runs/es2/on", "refusal", "runs.es2.on: there is no run 'refusal'; did you mean refusal_sft"),
    ("runs/es2", {"method": "es2"}, "runs.es2.on: this key is missing; name the run that training starts from"),
    ("runs/base", {"method": "base", "training": {"steps": 1}}, "runs.base: an untrained run has neither"),
    ("runs/refusal_sft/on", "es2", "the runs form a circle (refusal_sft -> es2 -> refusal_sft)"),
    ("runs/hold/training", {}, "runs.hold.training.separation.weight: it is 1, and `hold` is a control"),
    ("runs/es2/training", {"separation": {"weight": 0}}, "runs.es2.training.separation.weight: it is 0"),
    (
        "runs/es2/training",
        {"lora": {"rank": 4}},
        "runs.es2.training.lora: it differs from that of 'refusal_sft', whose adapter es2 goes on with; give",
    ),
    ("runs/es2/training", {"batch": {"advbench": 0}}, "runs.es2.training.batch: a step has no harmful prompts"),
    ("training/batch/strongreject", 2, "training.batch.strongreject: this set is not selected or has no defence"),
    ("training/batch/plain", -2, "training.batch.plain: -2 does not fit; give a number at least 0"),
    ("training/sft/refusals", "refusal", "training.sft.refusals: there is no source 'refusal'"),
    ("attacks/scav/kind", "skav", "attacks.scav.kind: 'skav' is not known; did you mean scav"),
    ("attacks/scav/kind", DELETE, "attacks.scav.kind: this key is missing"),
    ("attacks/scav/p0", 0, "attacks.scav.p0: 0 does not fit; give a number above 0"),
    ("attacks/scav/c", 2.0, "attacks.scav.c: no probe is fitted with C = 2; add it to probes.c"),
    ("attacks/scav_adaptive/budgets", [0.2, 0.1], "attacks.scav_adaptive.budgets: they do not ascend"),
    ("attacks/scav_adaptive/control_budgets", [7.0], "control_budgets: 7 is none of the budgets"),
    ("attacks/scav_adaptive/search/windows", [[0.9, 0.1]], "[0.9, 0.1] ends before it begins"),
    ("bundles/scav/attack", "scaf", "bundles.scav.attack: there is no attack 'scaf'; did you mean scav"),
    ("bundles/scav/fitted_on", [], "bundles.scav.fitted_on: it is empty"),
    (
        "bundles/scav/fitted_on",
        ["base"],
        "bundles.scav.controls: they replay what is fitted on the run itself",
    ),
    ("bundles/scav/fitted_on", ["child"], "bundles.scav.fitted_on.0: 'child' does not fit; give 'base', 'parent' or"),
    (
        "bundles/scav_adaptive/fitted_on",
        ["base", "self"],
        "bundles.scav_adaptive.fitted_on: an attack that searches for its setting is fitted on one model; keep",
    ),
    ("bundles/scav_adaptive/fitted_on", ["base"], "primary.attack: no bundle of select.bundles tries scav_adaptive as"),
    (
        "bundles/soft_prompt/controls/shuffled",
        1,
        "bundles.soft_prompt.controls.shuffled: a soft prompt has random controls alone; set it to 0",
    ),
    (
        "bundles/trial/fitted_on",
        ["parent"],
        "sweeps.trials.bundles: 'trial' is fitted on another model, and trials are",
    ),
    (
        "bundles/ablation_parent/fitted_on",
        ["base"],
        "sweeps.transfer_ablation.bundles: 'ablation_parent' and 'ablation_base' attack refusal_sft by ablation as",
    ),
    ("bundles/scav/controls", DELETE, "bundles.scav.controls: this key is missing"),
    ("bundles/direct/fitted_on", ["self"], "bundles.direct: the attack direct has neither"),
    ("bundles/direct/benchmarks", {"xstest": 3}, "bundles.direct.benchmarks: there is no prompt set 'xstest'"),
    ("bundles/direct/benchmarks", {"plain": 0}, "bundles.direct.benchmarks: every set has size 0"),
    ("bundles/direct/runs", "any", "bundles.direct.runs: 'any' does not fit; give 'all' or 'trained' or a list"),
    ("judges/keyword/kind", "keywords", "judges.keyword.kind: 'keywords' is not known; did you mean keyword?"),
    ("judges/keyword/model", "smollm2_135m", "judges.keyword.model: there is no such key"),
    ("judges/a.b", {"kind": "keyword"}, "judges.a.b: a judge's name parts file names"),
    ("judges/r", RUBRIC, "judges.r: it has neither a model nor an endpoint; name the one"),
    ("judges/r", {**RUBRIC, "model": "smollm2_135m", "endpoint": ENDPOINT}, "judges.r: it has both a model and"),
    (
        "judges/r",
        {**RUBRIC, "model": "smollm2_135m", "threshold": 0.0},
        "judges.r: it takes either max_new_tokens, for",
    ),
    ("judges/r", {**ODDS, "endpoint": ENDPOINT}, "judges.r: an endpoint tells no odds; give max_new_tokens"),
    ("judges/r", {**RUBRIC, "model": "smollm2"}, "judges.r.model: there is no model 'smollm2'; did you mean"),
    ("judges/r", {**RUBRIC, "level": "harm"}, "judges.r.level: 'harm' does not fit; give 'answer' or 'useful'"),
    ("judges/r", {**RUBRIC, "endpoint": {**ENDPOINT, "key": "sk"}}, "judges.r.endpoint.key: there is no such key"),
    ("judges/z", {**ZOO, "judge": "harmbensch"}, "judges.z.judge: there is no judge 'harmbensch'; did you mean"),
    ("judges/z", {**ZOO, "judge": "md_judge"}, "judges.z.judge: judgezoo's md_judge is not taken, for it runs code"),
    ("judges/z", {key: ZOO[key] for key in ZOO if key != "threshold"}, "judges.z.threshold: this key is missing"),
    ("judges/z", {**ZOO, "threshold": 0}, "judges.z.threshold: 0 does not fit; give a number above 0"),
    ("judges/keyword", ZOO, "select.judges: 'keyword' of kind judgezoo stands first"),
    ("prompt_sets/plain/sources", ["plan_general"], "prompt_sets.plain.sources: there is no source 'plan_general'"),
    ("prompt_sets/plain/splits", {"test": "rest", "attack": "rest"}, "splits: two splits cannot both have the rest"),
    ("prompt_sets/plain/splits", {"tests": 4}, "prompt_sets.plain.splits"),
    ("prompt_sets/strongreject/splits", {"test": 0}, "prompt_sets.strongreject.splits: every split is empty"),
    ("prompt_sets/plain/label", "harmless", "prompt_sets.plain.label: 'harmless' does not fit; give 'harmful' or"),
    ("sources/adv_bench/kind", "weel", "sources.adv_bench.kind: 'weel' is not known; did you mean wheel or w"),
    ("sources/adv_bench/sha256", "abc", "sources.adv_bench.sha256: 'abc' is no SHA-256; give its 64"),
    ("sources/adv_bench/sha256", DELETE, "sources.adv_bench.sha256: this key is missing"),
    ("sources/adv_bench/requirement", "pyrit", "sources.adv_bench.requirement: 'pyrit' is not pinned; write name==v"),
    ("sources/qwen_coder_1_5b_gguf/requirement", "part==1.0", "'part==1.0' is not the pinned name of parts; write na"),
    ("sources/qwen_coder_1_5b_gguf/parts", 0, "sources.qwen_coder_1_5b_gguf.parts: 0 does not fit"),
    ("sources/mine", {"kind": "hub", "repo": "a/b", "file": "c"}, "sources.mine.revision: this key is missing"),
    ("models/mine", {"format": "hub", "repo": "a/b", **PLAIN}, "models.mine.revision: this key is missing"),
    (
        "models/mine",
        {"format": "hub", "repo": "a/b", "revision": "main", **PLAIN},
        "models.mine.revision: 'main' is no commit; give its 40 hexadecimal digits, for a branch or tag may move",
    ),
    ("models/mine", {"format": "folder", **PLAIN}, "models.mine.path: this key is missing"),
    ("models/mine", {"format": "folder", "path": "", **PLAIN}, "models.mine.path: the text is empty; write one"),
    ("sources/adv_bench/member", DELETE, "sources.adv_bench.member: this key is missing"),
    ("sources/adv_bench/where", {}, "sources.adv_bench.where: it has 0 entries; give at least 1"),
    ("sources/adv_bench/where", {"label": 1}, "sources.adv_bench.where.label: 1 does not fit"),
    ("sources/mine", {"kind": "github", "repo": "set"}, "sources.mine.repo: 'set' is no repository; write owner/name"),
    (
        "sources/mine",
        {"kind": "github", "repo": "a/b", "revision": "main"},
        "sources.mine.revision: 'main' is no commit; give",
    ),
    ("sources/adv_bench/sha265", "abc", "sources.adv_bench.sha265: there is no such key; did you mean sha256?"),
    ("models/smollm2_135m/source", "smollm", "models.smollm2_135m: there is no source 'smollm'"),
    ("models/smollm2_135m/format", "ggml", "models.smollm2_135m.format: 'ggml' is not known; did you mean gguf?"),
    ("reference/held_out", {"advbench": 4}, "reference.held_out.advbench: drift is read on harmless prompts"),
    ("reference/held_out", {"plain": 10_000}, "reference.held_out.plain: 10000 prompts of 60 in split validation"),
    ("reference/drift", {}, "reference.drift: every set has size 0"),
    ("ability/tasks", {"mmlu": {"limit": 3, "source": "x"}}, "ability.tasks.mmlu.source: there is no source 'x'"),
    ("primary/run", "es3", "primary.run: there is no selected run 'es3'"),
    ("primary/benchmark", "pool", "primary.benchmark: there is no benchmark 'pool'; did you mean pooled?"),
    ("primary/factor", 3.0, "primary.factor: 3 is none of comparison.factors"),
    ("primary/factor", None, "primary.factor: scav_adaptive is tried over budgets; name one of comparison.factors"),
    ("primary/attack", "direct", "primary.factor: direct is not tried over budgets; set it to null"),
    ("primary/against", "base", "primary.against: es2 is compared with refusal_sft, hold, "),
    ("report/main", "es2_t2", "report.main: there is no selected run 'es2_t2'"),
    ("report/plain", "plane", "report.plain: there is no selected prompt set 'plane'; did you mean plain"),
    ("release", ["base"], "release: 'base' is untrained"),
    ("sweeps/dose_response/runs", ["es2_t9"], "sweeps.dose_response.runs: there is no run 'es2_t9'"),
    ("trials/sweeps", ["trails"], "trials.sweeps: there is no sweep 'trails'; did you mean trials"),
    ("sweeps/ablations/models", ["smolm"], "sweeps.ablations.models: there is no model 'smolm'"),
    ("attacks/sampled/samples", 1, "attacks.sampled.samples: 1 does not fit"),
    ("bundles/sampled/fitted_on", ["self"], "bundles.sampled: the attack sampled has neither fitted_on nor controls"),
    ("runs/es2_mean/training/separation", {"weight": 0.0}, "runs.es2_mean.training.separation.weight: it is 0"),
    ("runs/hold/on", "base", "report.parent: it is refusal_sft, and the run hold starts from base"),
    ("trials/kl_heldout", 0, "trials.kl_heldout: 0 does not fit; give a number above 0"),
    ("sweeps/trials/runs", ["base", "es2_two"], "sweeps.trials.runs: 'base' is untrained and so no trial"),
    ("sweeps/trials/bundles", ["direct", "trial"], "sweeps.trials.bundles: trials are chosen by two bundles"),
    ("sweeps/trials/bundles", ["validation", "trial", "scav"], "sweeps.trials.bundles: trials are chosen by two"),
    (
        "sweeps/trials/bundles",
        ["validation", "trial", "trial_ablation", "ablation"],
        "sweeps.trials.bundles: trials are",
    ),
    ("sweeps/trials/bundles", ["validation", "trial_ablation"], "sweeps.trials.bundles: trials are chosen by two"),
    (
        "runs/es2_refat/training/gradient_checkpointing",
        True,
        "runs.es2_refat.training.gradient_checkpointing: the",
    ),
    (
        "runs/es2_refat/training/adversarial/depths",
        [0.9, 0.3],
        "runs.refat.training.adversarial.depths: [0.9, 0.3]",
    ),
    (
        "runs/es2_refat/training/adversarial/start",
        [0.0, 0.7],
        "runs.refat.training.adversarial.end: it begins at 0.5, before the last start, 0.7",
    ),
    ("runs/es2_refat/training/adversarial", {"refit_every": 4}, "runs.es2_refat.training.checkpoint_every: it is no"),
    ("runs/a b", BASE, "'a b' is no name"),
    ("name", "../up", "name: '../up' is no name"),
    ("name", DELETE, "name: this key is missing"),
    ("gpus", None, "gpus: nothing does not fit; give a whole number"),
]


@pytest.mark.parametrize(("place", "value", "said"), MISTAKES, ids=[place for place, *_ in MISTAKES])
def test_a_mistake_is_one_sentence_that_names_its_key(default, place, value, said):
    with pytest.raises(UserError) as raised:
        read_study(changed(default, place, value))
    sentence = str(raised.value)
    assert said in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300


def test_a_missing_file_of_the_users_is_one_sentence(default, tmp_path):
    source = {"kind": "file", "path": str(tmp_path / "mine.csv")}
    study = read_study(changed(default, "sources/mine", source))
    with pytest.raises(UserError, match=r"sources\.mine\.path: there is no file"):
        check_files(study)
    study = read_study(changed(default, "sources/refusals/file", "refusal.jsonl"))
    with pytest.raises(UserError, match=r"sources\.refusals\.file: .* did you mean refusals\.jsonl"):
        check_files(study)


def test_what_a_judge_needs_here_is_one_sentence_before_any_job(default, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    config = changed(default, "judges/z", ZOO)
    config["judges"]["r"] = {**RUBRIC, "endpoint": {**ENDPOINT, "key_variable": "MY_KEY"}}
    config["judges"]["f"] = {**RUBRIC, "model": "mine"}
    config["models"]["mine"] = {"format": "folder", "path": "no/where", "system_prompt": "template", "dtype": "float32"}
    check_files(read_study(config))
    monkeypatch.setattr("es2.judges.zoo.version", lambda name: "0.1.8")
    for name, said in (
        ("z", "judges.z: .* 0.1.8 is installed"),
        ("r", "MY_KEY is not set"),
        ("f", "no folder no/where"),
    ):
        study = read_study(changed(config, "select/judges", ["keyword", name]))
        with pytest.raises(UserError, match=said):
            check_files(study)


@pytest.mark.parametrize(
    ("key", "value"),
    [("key_variable", "sk-secret"), ("url", "https://me:secret@host/v1"), ("url", "https://host/v1?key=secret")],
)
def test_a_secret_in_an_endpoints_row_is_refused_and_not_repeated(default, key, value):
    with pytest.raises(UserError, match=rf"judges\.r\.endpoint\.{key}: it is no ") as raised:
        read_study(changed(default, "judges/r", {**RUBRIC, "endpoint": {**ENDPOINT, key: value}}))
    assert "secret" not in str(raised.value)


def test_a_backend_that_is_not_installed_is_one_sentence_before_any_job(default):
    study = read_study(changed(default, "generation/backend", "vllm"))
    with pytest.raises(UserError, match=r"generation\.backend: the package vllm is not installed"):
        check_files(study)
