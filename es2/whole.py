"""A defence whose weights are all its own, kept where other runs have an adapter (the method `external`)."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import PreTrainedModel

from es2.files import read_json

KIND = "WHOLE"  # the peft_type of such a folder's adapter_config.json, which peft itself does not know
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_whole(adapter: str | Path) -> bool:
    """Whether an adapter's folder holds all weights of a model instead."""
    settings: dict[str, Any] = read_json(Path(adapter) / CONFIG)
    return settings.get("peft_type") == KIND


def put_weights(model: PreTrainedModel, adapter: str | Path) -> None:
    """Give a model the weights in an adapter's folder, in its own precision; those that are tied stay so.

    `es2.external` has seen to it that names and shapes are the model's.
    """
    model.load_state_dict(load_file(Path(adapter) / WEIGHTS), strict=False)
    model.tie_weights()
