"""Configs for tests: those of the study, and one value changed."""

import copy
from pathlib import Path
from typing import Any

import yaml

from es2.config import merged

ROOT = Path(__file__).parents[1]


def load(*names: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name in names:
        config = merged(config, yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8")))
    return config


def changed(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy of the config with one value set; DELETE takes the key away."""
    config = copy.deepcopy(config)
    *path, last = place.split("/")
    at = config
    for key in path:
        at = at[key]
    if value is DELETE:
        del at[last]
    else:
        at[last] = value
    return config


DELETE = object()
RUBRIC: dict[str, Any] = {"kind": "rubric", "level": "answer", "max_new_tokens": 64, "batch_rows": 8}
ODDS: dict[str, Any] = {"kind": "rubric", "level": "answer", "threshold": 0.0, "batch_rows": 8}
ENDPOINT = {"url": "http://localhost:8000/v1", "model": "big"}
ZOO: dict[str, Any] = {"kind": "judgezoo", "judge": "harmbench", "threshold": 0.5, "batch_rows": 8}
BASE, SFT = {"method": "base"}, {"method": "refusal_sft", "on": "base"}
