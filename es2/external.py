"""An adapter that others trained: checked, and brought to where the study looks for a run's own."""

import json
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from es2.errors import UserError
from es2.files import atomic_write, write_json
from es2.models import load_model


def bring_adapter(run: str, config: str | Path, weights: str | Path, model: str | Path, folder: str | Path) -> None:
    """Put a LoRA adapter in peft's format (`config`, JSON; `weights`, safetensors) into `folder`.

    It must fit the model in the folder `model`: it is relative to the shipped base, as all adapters here are. Raises
    UserError naming the run where it is not an adapter or does not fit.
    """
    where = f"runs.{run}.adapter"
    settings, names = _settings(where, config), _tensor_names(where, weights)
    folder, base = Path(folder), Path(model).name
    write_json(folder / "adapter_config.json", {**settings, "base_model_name_or_path": base})
    with atomic_write(folder / "adapter_model.safetensors") as temporary:
        Path(temporary).write_bytes(Path(weights).read_bytes())
    try:
        lm = load_model(model, folder, device="cpu", merge=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: it does not fit {base} ({error}); name its own base") from error
    if strange := names ^ set(get_peft_model_state_dict(lm.model)):
        raise UserError(
            f"{where}: it does not fit {base} ({len(strange)} weights stand on one side alone, such as "
            f"{min(strange)}); name its own base"
        )


def _settings(where: str, path: str | Path) -> dict[str, Any]:
    try:
        settings = dict(json.loads(Path(path).read_text(encoding="utf-8")))
        kind = settings["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}.config: {Path(path).name} is no adapter_config.json of peft; give it") from error
    if kind != "LORA":
        raise UserError(f"{where}.config: the adapter is of type {kind}, and only LORA can be read; merge it instead")
    return settings


def _tensor_names(where: str, path: str | Path) -> set[str]:
    try:
        with safe_open(str(path), framework="pt") as stream:
            names = set(stream.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{where}.weights: {Path(path).name} is no safetensors file; give that form") from error
    if not any("lora_" in name for name in names):
        raise UserError(f"{where}.weights: {Path(path).name} holds no LoRA weights; give adapter_model.safetensors")
    return names
