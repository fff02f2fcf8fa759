"""Reading a study's config: files laid over each other, checked, made into one object (`es2.study.Study`).

`python -m es2.config` prints the JSON schema that workflow/schemas/config.schema.yaml holds, and with config files the
results folder of their study. Torch-free.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from es2.errors import UserError
from es2.registry import EXTERNAL, METHODS, UNTRAINED
from es2.settings.checks.judges import check_judges_here
from es2.settings.checks.keys import check_keys
from es2.settings.checks.packages import check_backend_here
from es2.settings.checks.paths import check_paths, own_file, own_model_files
from es2.settings.checks.runs import check_adapters, check_training
from es2.settings.checks.whole import check
from es2.settings.errors import user_error
from es2.settings.study import Config
from es2.settings.training import Training
from es2.study import Settings, Study

__all__ = [
    "Study",
    "as_written",
    "check_files",
    "check_keys",
    "method_module",
    "own_file",
    "own_model_files",
    "read_study",
    "schema",
    "source_file",
]


def merged(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
    """`settings` with `overrides` laid over them: mappings merge, everything else replaces."""
    result = dict(settings)
    for key, value in overrides.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def as_written(config: Mapping[str, Any]) -> Settings:
    """The config with the key `on` of its runs, which YAML 1.1 reads as the truth value."""
    runs = config.get("runs")
    if not isinstance(runs, Mapping):
        return dict(config)
    rows = {
        name: {"on" if key is True else key: value for key, value in row.items()} if isinstance(row, Mapping) else row
        for name, row in runs.items()
    }
    return {**config, "runs": rows}


def read_study(config: Mapping[str, Any]) -> Study:
    """Check a config and return it as a study. Raises UserError, one sentence, for the first mistake."""
    config = as_written(config)
    try:
        checked = Config.model_validate(config)
    except ValidationError as error:
        raise user_error(error, config) from None
    check(checked)
    trainings = {}
    for name, run in checked.runs.items():
        if run.method in (UNTRAINED, EXTERNAL):
            continue
        settings = merged(config["training"], run.training)
        try:
            trainings[name] = Training.model_validate(settings)
        except ValidationError as error:
            raise user_error(error, settings, f"runs.{name}.training") from None
        check_training(checked, name, trainings[name])
    check_adapters(checked, trainings)
    study = Study(checked, trainings)
    for scope in study.scopes:
        _check_attacked_once(study, scope)
    return study


def _check_attacked_once(study: Study, scope: str) -> None:
    """No run of a scope meets the same prompts twice under one attack fitted on one model: tables hold each once."""
    seen: dict[tuple[str, ...], str] = {}
    for name in study.bundles(scope):
        bundle = study.bundle(name)
        for run in study.bundle_runs(name, scope):
            models = study.fitted_on(name, run).values() or [run]
            for key in product([run], [bundle["attack"]], models, bundle["benchmarks"]):
                if seen.setdefault(key, name) != name:
                    where = f"sweeps.{scope}.bundles" if scope else "select.bundles"
                    raise UserError(
                        f"{where}: {seen[key]!r} and {name!r} attack {run} by {key[1]} as fitted on {key[2]}; take one "
                        f"away, or narrow bundles.{name}.runs"
                    )


def check_files(study: Study) -> None:
    """Raise UserError for the first file, folder, package or key that the config names and this machine lacks."""
    check_paths(study.config)
    check_judges_here(study.config)
    check_backend_here(study.config)


def schema() -> str:
    """The config's JSON schema, as YAML."""
    head = "# Made by `python -m es2.config > workflow/schemas/config.schema.yaml`; a test compares.\n"
    form = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    body: str = yaml.safe_dump(form, sort_keys=False, width=110)
    return head + body


def source_file(name: str, row: Mapping[str, Any]) -> str:
    """The file name of a fetched source: its key and the suffix of what is fetched."""
    origin = row.get("member") or row.get("file") or row.get("path")
    return name + Path(str(origin)).suffix


def method_module(method: str) -> str:
    """The module of a training method."""
    return METHODS[method].partition(":")[0]


def read_files(files: Sequence[str]) -> Study:
    """The study that these config files, laid over each other, describe."""
    config: Settings = {}
    for file in files:
        config = merged(config, yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    return read_study(config)


def results_folder(files: Sequence[str]) -> str:
    """The results folder of the study that these config files describe."""
    return f"results/{read_files(files).config.name}"


if __name__ == "__main__":
    print(results_folder(sys.argv[1:]) if len(sys.argv) > 1 else schema(), end="")
