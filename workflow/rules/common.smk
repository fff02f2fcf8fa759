"""Paths and look-ups that the rules share. What a config means is es2.study's business."""

import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

RESULTS = f"results/{study.config.name}"
MODELS = f"{RESULTS}/models/"
SCRIPTS = Path(workflow.basedir, "workflow", "scripts")
ADAPTER = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
REFERENCE = ["reference/answers.jsonl", "reference/states.safetensors"]
SOURCES = {name: source_file(name, row.model_dump()) for name, row in study.config.sources.items()}
SWEEPS = {"": "", **{f"{name}/": name for name in study.config.sweeps}}
SETS = study.sets()
ATTACKER_SETS = [*study.sets_of("harmful"), *study.sets_of("safe", "attack")]
JUDGE_NAME = study.config.select.judges[0]
JUDGE = study.config.judges[JUDGE_NAME]
JUDGE_MODULES = [registry.JUDGES[row.kind] for row in study.config.judges.values()]
PAGE_TABLES = ["dsr", "robustness", "paired", "separability", "ability"]
TABLES = [*PAGE_TABLES, "seeds", "training", "verdicts", "settings", "cost", "findings", "main", "targets"]
FIGURES = ["separability", "projection", "training", "robustness", "dsr", "dose_response", "balance", "tradeoff"]
SWEEP_TABLES = [
    *("dsr", "robustness", "paired", "seeds", "contest", "separability", "training", "verdicts"),
    *("settings", "attack_cost"),
]
SWEEP_FIGURES = ["contest", "dose_response", "robustness", "dsr", "balance", "separability", "training"]
TRIAL_TABLES, TRIAL_FIGURES = ["trials", "settings"], ["trials"]
if len(study.config.seeds) > 1:
    FIGURES.append("seeds")
    SWEEP_FIGURES.append("seeds")
if len(study.config.select.judges) > 1:
    TABLES.append("judges")
    SWEEP_TABLES.append("judges")
TRIALS = study.config.trials
BOUNDS = TRIALS.model_dump(exclude={"sweeps"})
MODELS_SELECTED = study.config.select.models
PACKAGES = ["torch", "transformers", "peft", "lm-eval", "scikit-learn", "scipy", "statsmodels", "snakemake"]
SETTINGS = {
    *("name", "seeds", "splits_seed", "prompt_sets", "extraction", "probes", "reference", "bundles", "generation"),
    *("primary", "comparison", "trials", "ability", "merge"),
}
BATCH_ROWS = study.config.generation.batch_rows
ANSWER_TOKENS = study.config.reference.answer_tokens
GRADIENTS = {name: attack.gradients for name, attack in study.config.attacks.items() if attack.kind == "soft_prompt"}
THREADS, GPUS = study.config.threads, study.config.gpus
HUB_MODELS = [name for name, row in study.config.models.items() if row.format == "hub"]
HOW_IT_IS_RUN = {"dtype", "system_prompt", "licence"}  # of a model's settings, those that do not change its files
# Questions of the harness are fetched by a local rule and found in this folder by jobs without a network.
os.environ.setdefault("HF_DATASETS_CACHE", os.path.abspath("resources/tasks/data"))


def one_of(names: Iterable[str]) -> str:
    """A wildcard's constraint: one of these names; of none of them, nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def folder_of(wanted: Callable) -> str:
    """The folder of a run for which `wanted` holds, as a pattern."""
    runs = one_of(run for run in study.config.runs if wanted(run))
    return f"<results>/models/{{model}}/{{run,{runs}}}/s{{seed}}"


def data(name: str) -> str:
    """The fetched file of a source."""
    return f"resources/sources/{SOURCES[name]}"


def prompts() -> list[str]:
    """The prompt sets of the study."""
    return [f"{RESULTS}/prompts/{name}.parquet" for name in SETS]


def at(row: dict, file: str) -> str:
    """A file of the run that a row names."""
    return f"{RESULTS}/models/{row['model']}/{row['run']}/s{row['seed']}/{file}"


def row(wildcards) -> dict:
    """The first columns of a job's tables: run, model, method, parent, seed."""
    return study.row(wildcards.run, wildcards.model, int(wildcards.seed))


def own(wildcards) -> dict:
    """The run itself."""
    return row(wildcards)


def parent(wildcards) -> dict | None:
    """The run that it starts from, if it is trained."""
    return sibling(wildcards, study.parent(wildcards.run))


def base(wildcards) -> dict:
    """The untrained run at the root of its line."""
    return sibling(wildcards, study.base(wildcards.run))


def refuser(wildcards) -> dict:
    """The run whose refusals serve as reference: the run itself if it is the study's parent, else its parent."""
    return row(wildcards) if wildcards.run == study.config.report.parent else parent(wildcards)


def sibling(wildcards, run: str) -> dict | None:
    """Another run of the same model, at the same seed if it is trained."""
    return study.row(run, wildcards.model, study.seed(run, int(wildcards.seed))) if run else None


def of(who: Callable, *files: str) -> Callable:
    """An input: files of a run related to the job's own; none where there is no such run."""
    return lambda wildcards: [at(who(wildcards), file) for file in files] if who(wildcards) else []


def one(who: Callable, file: str) -> Callable:
    """An input: one file of a run related to the job's own."""
    return lambda wildcards: at(who(wildcards), file)


def adapter(who: Callable) -> Callable:
    """An input: a run's adapter; none for an untrained run."""
    return lambda wildcards: [at(who(wildcards), file) for file in ADAPTER if study.trained(who(wildcards)["run"])]


def manifest(wildcards) -> str:
    """The manifest of the job's model."""
    return f"resources/models/{wildcards.model}/manifest.json"


@cache
def code_of(rule: str, kinds: tuple[str, ...]) -> str:
    """The fingerprint of a script's code, made once for all jobs of its rule."""
    return fingerprint(SCRIPTS / f"{rule}.py", kinds)


def code(rule: str, kinds: Callable | list[str] = ()) -> Callable:
    """A parameter: the fingerprint of the code behind a rule's script, with the modules that this job's names mean."""

    def found(wildcards) -> str:
        return code_of(rule, tuple(kinds(wildcards) if callable(kinds) else kinds))

    return found


def model_settings(model: str) -> dict:
    """What loading a model of the catalogue needs to know."""
    chosen = study.config.models[model]
    return {"system_prompt": chosen.system_prompt, "dtype": chosen.dtype}


def cfg(*sections: str, **more) -> Callable:
    """A parameter: sections of the config as one plain dict, `model` being the settings of the job's model."""

    def found(wildcards) -> dict:
        settings = {name: study.section(name) for name in sections if name != "model"}
        if "model" in sections:
            settings["model"] = model_settings(wildcards.model)
        return settings | {key: value(wildcards) if callable(value) else value for key, value in more.items()}

    return found


def method_of(wildcards) -> list[str]:
    """The module that trains a run."""
    return [method_module(study.config.runs[wildcards.run].method)]


def attack_of(wildcards) -> list[str]:
    """The modules of a bundle's attack and of the judge that an adaptive attacker asks."""
    return [registry.ATTACKS[attack(wildcards)["kind"]], registry.JUDGES[JUDGE.kind]]


def attack(wildcards) -> dict:
    """The config row of a bundle's attack."""
    return study.config.attacks[study.config.bundles[wildcards.bundle].attack].model_dump()


def bundle(wildcards) -> dict:
    """A bundle's config row, without benchmarks of size 0."""
    return study.bundle(wildcards.bundle)


def fitted_on(wildcards) -> list[str]:
    """The names (self, base, parent) of the models that a bundle's attack is fitted on."""
    return list(study.fitted_on(wildcards.bundle, wildcards.run))


def probes(wildcards) -> list[str]:
    """The probes of these models, in the same order."""
    runs = study.fitted_on(wildcards.bundle, wildcards.run).values()
    return [at(sibling(wildcards, run), "probes.safetensors") for run in runs]


def recorded(wildcards) -> dict:
    """Whose answers are recorded; what attacks aim at are the untrained model's alone."""
    section = study.section("reference")
    return section | {"targets": {}} if study.trained(wildcards.run) else section


def targets(wildcards) -> list[str]:
    """The untrained model's answers, where an attack aims at them."""
    return [at(base(wildcards), REFERENCE[0])] if attack(wildcards)["kind"] == "soft_prompt" else []


def attack_files(wildcards) -> list[str]:
    """The file that an attack's config names: the user's own code, or published prompts."""
    chosen = attack(wildcards)
    files = {"file": lambda: [chosen["path"]], "published": lambda: [data(chosen["source"])]}
    return files.get(chosen["kind"], list)()


def attacked_embeddings(wildcards) -> list[str]:
    """The run's own embeddings, where an attack edits them."""
    return [at(row(wildcards), "embeddings.safetensors")] if fitted_on(wildcards) else []


def fitted_model(name: str) -> Callable:
    """An input: embeddings and adapter of the base or parent, where an attack that searches is fitted on it."""

    def found(wildcards) -> list[str]:
        run = study.fitted_on(wildcards.bundle, wildcards.run).get(name)
        if run is None or "search" not in attack(wildcards):
            return []
        files = ["embeddings.safetensors", *(ADAPTER if study.trained(run) else [])]
        return [at(sibling(wildcards, run), file) for file in files]

    return found


def refusals(wildcards) -> list[str]:
    """The refusal texts that a run learns, if its method learns any."""
    settings = study.training(wildcards.run)
    return [data(settings["sft"]["refusals"])] if "sft" in settings else []


def compliant(wildcards) -> list[str]:
    """The untrained model's answers, if the run's method changes the states of complying, or seeks what brings it out."""
    settings = study.training(wildcards.run)
    attack = settings.get("adversarial", {})
    seeks = attack.get("hardest") is not None or "soft_prompt" in attack.get("edits", [])
    asked = "rerouting" in settings or seeks
    return [at(base(wildcards), REFERENCE[0])] if asked else []


def model_source(wildcards) -> list[str]:
    """The files that a model is made from: sources, or those of the user's folder, so that an edit is noticed."""
    model = study.config.models[wildcards.model]
    return [*map(data, model_sources(model)), *map(str, own_model_files(model))]


def source_input(wildcards) -> list[str]:
    """The user's or the package's own file behind a source, so that an edit of it is noticed."""
    file = own_file(study.config.sources[source_name(wildcards)])
    return [] if file is None else [os.path.relpath(file)]


def source_name(wildcards) -> str:
    """The config key of a fetched file."""
    return next(name for name, file in SOURCES.items() if file == wildcards.file)


def scope(wildcards) -> str:
    """The scope that a table or figure is of."""
    return SWEEPS[wildcards.sweep]


def every(file: str, wanted: Callable = lambda row: True) -> Callable:
    """An input: one file of each run, model and seed of the scope."""
    return lambda wildcards: [at(row, file) for row in study.rows(scope(wildcards)) if wanted(row)]


def every_row(wanted: Callable = lambda row: True) -> Callable:
    """A parameter: the rows of the runs whose files `every` gives, in the same order."""
    return lambda wildcards: [row for row in study.rows(scope(wildcards)) if wanted(row)]


def is_finetuned(row: dict) -> bool:
    """Whether a row's run is trained by the study."""
    return study.finetuned(row["run"])


def main_layers(model: str) -> str:
    """Where the layers stand that `auto` means for the study's main run."""
    main = study.config.report.main
    return auto_layers(study.row(main, model, study.seeds(main)[0]))


def auto_layers(row: dict) -> str:
    """Where the layers stand that `auto` means for a run: with its parent, at the same seed."""
    start = row["parent"] or row["run"]
    return at(study.row(start, row["model"], study.seed(start, row["seed"])), "layers.json")


def first_seed(wildcards) -> list[dict]:
    """The rows of one model's runs in a scope, each at its first seed."""
    runs = study.runs(scope(wildcards))
    return [study.row(run, wildcards.model, study.seeds(run)[0]) for run in runs]


def changing(wildcards) -> list[dict]:
    """Of these, those that change states."""
    changed = study.changed_layers(scope(wildcards))
    return [row for row in first_seed(wildcards) if row["run"] in changed]


def trainings(wildcards) -> list[dict]:
    """The rows of all trainings of one model in a scope, each seed of a run."""
    return [row for row in study.rows(scope(wildcards)) if row["model"] == wildcards.model and is_finetuned(row)]


def study_of(wildcards) -> dict:
    """Who is who, for the figures of one model and scope."""
    return study.report(wildcards.model, scope(wildcards))


def judges_of(wanted: Callable) -> str:
    """A wildcard's constraint: one of the judges whose kind is wanted."""
    return one_of(name for name, judge in study.config.judges.items() if wanted(judge.kind))


def judging_manifest(wildcards) -> list[str]:
    """The manifest of the model that judges, where it is one of the catalogue."""
    model = study.judging(wildcards.judge)
    return [f"resources/models/{model}/manifest.json"] if model else []


def judging_settings(wildcards) -> dict:
    """How this model is loaded."""
    model = study.judging(wildcards.judge)
    return model_settings(model) if model else {}


def fetched_model(wildcards) -> list[str]:
    """The note that a model of the hub is in the cache."""
    return [f"resources/hub/{wildcards.model}.json"] if wildcards.model in HUB_MODELS else []
