"""A defence that others trained, an adapter or a whole model: checked, and brought to where the study looks for a
run's own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from es2.errors import UserError
from es2.files import atomic_write, write_json
from es2.models import load_model
from es2.whole import CONFIG, KIND, WEIGHTS

Shapes = dict[str, list[int]]
_WANTED = "give an adapter_config.json of peft, or the config.json of a whole model"


def bring_adapter(run: str, config: str | Path, weights: str | Path, model: str | Path, folder: str | Path) -> None:
    """Put a defence of others into `folder`: a LoRA adapter in peft's format (`config`, JSON; `weights`, safetensors),
    or a whole model in transformers' (its config.json, and its weights in one file).

    It must fit the model in the folder `model`: an adapter is relative to the shipped base, as all adapters here are,
    and a whole model has the weights of the same names and shapes. Raises UserError naming the run where it is neither
    or does not fit.
    """
    where = f"runs.{run}.adapter"
    settings, shapes = _settings(where, config), _shapes(where, weights)
    folder, base = Path(folder), Path(model).name
    if "peft_type" in settings:
        _check_adapter(where, config, weights, settings, shapes)
    else:
        _check_model(where, shapes, model)
        settings = {"peft_type": KIND}
    write_json(folder / CONFIG, {**settings, "base_model_name_or_path": base})
    with atomic_write(folder / WEIGHTS) as temporary:
        Path(temporary).write_bytes(Path(weights).read_bytes())
    if settings["peft_type"] != KIND:
        _check_fit(where, set(shapes), model, folder)


def _settings(where: str, path: str | Path) -> dict[str, Any]:
    try:
        settings = dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}.config: {Path(path).name} is no JSON file of settings; {_WANTED}") from error
    if not settings.keys() & {"peft_type", "architectures"}:
        raise UserError(f"{where}.config: {Path(path).name} is of neither peft nor transformers; {_WANTED}")
    return settings


def _shapes(where: str, path: str | Path) -> Shapes:
    try:
        with safe_open(str(path), framework="pt") as stream:
            return {name: stream.get_slice(name).get_shape() for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{where}.weights: {Path(path).name} is no safetensors file; give that form") from error


def _check_adapter(
    where: str, config: str | Path, weights: str | Path, settings: Mapping[str, Any], shapes: Shapes
) -> None:
    if (kind := settings["peft_type"]) != "LORA":
        raise UserError(
            f"{where}.config: {Path(config).name} is of type {kind}, and only LORA can be read; merge it into its "
            "model, and give that"
        )
    if not any("lora_" in name for name in shapes):
        raise UserError(f"{where}.weights: {Path(weights).name} holds no LoRA weights; give adapter_model.safetensors")


def _check_fit(where: str, names: set[str], model: str | Path, folder: Path) -> None:
    """An adapter in `folder` goes onto the model, each weight to its place."""
    base = Path(model).name
    try:
        lm = load_model(model, folder, device="cpu", merge=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: it does not fit {base} ({error}); name its own base") from error
    if strange := names ^ set(get_peft_model_state_dict(lm.model)):
        raise UserError(f"{where}: it does not fit {base} ({_told(strange)}); name its own base")


def _check_model(where: str, shapes: Shapes, model: str | Path) -> None:
    """A whole model has all weights of `model`, but for those that it ties to another, in the same shapes."""
    known = load_model(model, device="cpu").model.state_dict()
    shared = [tensor.data_ptr() for tensor in known.values()]
    needed = {name for name, tensor in known.items() if shared.count(tensor.data_ptr()) == 1}
    strange = (shapes.keys() - known.keys()) | (needed - shapes.keys())
    strange |= {name for name in shapes.keys() & known.keys() if shapes[name] != list(known[name].shape)}
    tied = known.keys() - needed
    if tied and not tied & shapes.keys():
        strange |= tied
    if strange:
        raise UserError(
            f"{where}.weights: it does not fit {Path(model).name} ({_told(strange)}); give the whole model in one "
            "file, of the architecture and the tokens of the model that it stands beside"
        )


def _told(strange: set[str]) -> str:
    return f"{len(strange)} weights stand on one side alone or have another shape, such as {min(strange)}"
