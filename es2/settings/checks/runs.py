"""Rows of runs, and the settings that each is trained with."""

from collections.abc import Mapping

from es2.errors import UserError
from es2.registry import EXTERNAL, METHODS, TERMS, UNTRAINED
from es2.settings.checks.names import check_window, need
from es2.settings.lookup import sets_with
from es2.settings.study import Config
from es2.settings.training import Training


def check_runs(config: Config) -> None:
    """Every run has a method with the keys that it needs, and starts in the end from an untrained one."""
    for name, run in config.runs.items():
        where = f"runs.{name}"
        need(f"{where}.method", "method", run.method, [UNTRAINED, EXTERNAL, *METHODS])
        if (run.method == EXTERNAL) != (run.adapter is not None):
            raise UserError(f"{where}.adapter: the method {EXTERNAL} needs this key and no other has it; mend the row")
        if run.adapter is not None:
            need(f"{where}.adapter.config", "source", run.adapter.config, config.sources)
            need(f"{where}.adapter.weights", "source", run.adapter.weights, config.sources)
            if run.training:
                raise UserError(f"{where}.training: an external run is not trained; take this key away")
        if run.method == UNTRAINED and (run.on is not None or run.training):
            raise UserError(f"{where}: an untrained run has neither `on` nor `training`; take them away")
        if run.method != UNTRAINED and run.on is None:
            raise UserError(f"{where}.on: this key is missing; name the run that training starts from")
        if run.on is not None:
            need(f"{where}.on", "run", run.on, config.runs)
    _check_circles(config)


def _check_circles(config: Config) -> None:
    for name in config.runs:
        chain, at = [name], config.runs[name].on
        while at is not None:
            if at in chain:
                circle = " -> ".join([*chain[chain.index(at) :], at])
                raise UserError(f"runs.{at}.on: the runs form a circle ({circle}); let one start from a base")
            chain.append(at)
            at = config.runs[at].on


def check_training(config: Config, run: str, training: Training) -> None:
    """Check a trained run's merged settings."""
    where, method = f"runs.{run}", config.runs[run].method
    weight = training.separation.weight
    if method in ("hold", "adversarial") and weight != 0:
        raise UserError(
            f"{where}.training.separation.weight: it is {weight:g}, and `{method}` is a control without "
            "separation; set it to 0"
        )
    if method in ("es2", "es2_mean", "es2_adversarial") and weight == 0:
        control = "adversarial" if method == "es2_adversarial" else "hold"
        raise UserError(
            f"{where}.training.separation.weight: it is 0, which is the method {control}; give a weight above 0"
        )
    if method == "refusal_sft":
        need(f"{where}.training.sft.refusals", "source", training.sft.refusals, config.sources)
    if "adversarial" in TERMS.get(method, ()):
        _check_adversarial(where, training)
    for name, size in training.batch.items():
        need(f"{where}.training.batch", "prompt set", name, config.prompt_sets)
        if size and name not in sets_with(config, "defence"):
            raise UserError(
                f"{where}.training.batch.{name}: this set is not selected or has no defence split; "
                "select it, or set it to 0 to leave it out"
            )
    labels = {config.prompt_sets[name].label for name, size in training.batch.items() if size}
    for label in ("harmful", "safe"):
        if label not in labels:
            raise UserError(f"{where}.training.batch: a step has no {label} prompts; give a {label} set a size")


def _check_adversarial(where: str, training: Training) -> None:
    adversarial = training.adversarial
    at = f"{where}.training.adversarial"
    check_window(f"{at}.depths", adversarial.depths)
    check_window(f"{at}.start", adversarial.start)
    check_window(f"{at}.end", adversarial.end)
    if adversarial.start[1] > adversarial.end[0]:
        raise UserError(
            f"{at}.end: it begins at {adversarial.end[0]:g}, before the last start, {adversarial.start[1]:g}, so that "
            "an edit could have no layer; let the edits end later"
        )
    if training.checkpoint_every % adversarial.refit_every:
        raise UserError(
            f"{where}.training.checkpoint_every: it is no multiple of adversarial.refit_every "
            f"({adversarial.refit_every}), so that a resumed run would not be the undisturbed one; make it one"
        )
    if "ablation" in adversarial.edits and training.gradient_checkpointing:
        raise UserError(
            f"{where}.training.gradient_checkpointing: the edit `ablation` acts inside the blocks, which are run again "
            "without it; set it to false, or leave `ablation` out of adversarial.edits"
        )


def check_adapters(config: Config, trainings: Mapping[str, Training]) -> None:
    """A run on a trained parent goes on with its parent's adapter: LoRA settings of its own would do nothing."""
    for run, training in trainings.items():
        parent = str(config.runs[run].on)
        if parent in trainings and training.lora != trainings[parent].lora:
            raise UserError(
                f"runs.{run}.training.lora: it differs from that of {parent!r}, whose adapter {run} goes on with; give "
                "both the same, or let it start from a parent that was trained with it"
            )
