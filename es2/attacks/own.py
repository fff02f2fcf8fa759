"""An attack of the user's own: a Python file with `fit`, tried on the same prompts and judged as all others.

The file defines

    def fit(evaluation, settings): ...

which sees the model, what an attacker may see (`es2.attacks.base.Evaluation`, without the test prompts) and the
`settings` of the config, and returns an object with `applied(lm)`, a context manager within which the model is
attacked. Its `name`, and what it spends, `budget` (None: without one; in the column `realised`), stand in the tables if
it has them. It counts among the attacks without a budget axis, for it is tried at one strength. Code of the user's, run
as it is.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from es2.attacks.base import Attacked, Evaluation, answer_under
from es2.errors import UserError
from es2.names import SELF


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Fit the user's attack, then answers to the benchmarks under it."""
    fit = load(evaluation.files[0], f"attacks.{evaluation.attack}.path").fit
    attack = fit(replace(evaluation, benchmarks={}), settings["settings"])
    if not hasattr(attack, "applied"):
        raise UserError(
            f"attacks.{evaluation.attack}.path: fit() in {settings['path']} returned {type(attack).__name__}, which "
            "has no applied(lm); return an object with that context manager"
        )
    prompts = evaluation.prompts()
    answers = answer_under(evaluation, attack, prompts["prompt"].tolist())
    name, spent = getattr(attack, "name", Path(settings["path"]).stem), getattr(attack, "budget", None)
    return Attacked(evaluation.rows(prompts, answers, fitted_on=SELF, setting=name, realised=spent))


def load(path: str, where: str) -> ModuleType:
    """The user's file as a module; UserError, which names the config's key `where`, if it is not there, does not run,
    or has no `fit`."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise UserError(f"{where}: there is no Python file {path}; correct the path")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{where}: {path} does not run ({type(error).__name__}: {error}); mend it") from error
    if not callable(getattr(module, "fit", None)):
        raise UserError(f"{where}: {path} has no function fit(evaluation, settings); add it")
    return module
