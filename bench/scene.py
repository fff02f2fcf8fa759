"""What the bench runs on: a model, the project's own plain prompts, and sizes for minutes or for seconds."""

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from bench.measure import Machine
from es2.convert import make_random, tiny_tokenizer
from es2.files import read_jsonl
from es2.models import LanguageModel, load_model

ROOT = Path(__file__).parents[1]
MODEL = Path("resources/models/smollm2_135m")  # the embedded model, as the study converts it
SEED = 0
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
QWEN_HALF_BILLION = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything: prompts of extraction and of generation; probe prompts of each class to fit, validate
    and test on; resamples; tokens of answers; prompts of each class in a step, and in the step padded to `pad_to`;
    repetitions, and those of the rows whose anchor is slow."""

    prompts: int
    fit: int
    validation: int
    test: int
    resamples: int
    new_tokens: int
    step: int
    padded_step: int
    pad_to: int
    repetitions: int
    slow_repetitions: int


FULL = Sizes(
    prompts=64,
    fit=100,
    validation=60,
    test=80,
    resamples=100,
    new_tokens=32,
    step=8,
    padded_step=4,
    pad_to=512,
    repetitions=5,
    slow_repetitions=3,
)
LARGER = replace(FULL, prompts=32, padded_step=1, repetitions=3)
QUICK = Sizes(
    prompts=12,
    fit=12,
    validation=6,
    test=8,
    resamples=5,
    new_tokens=6,
    step=3,
    padded_step=2,
    pad_to=64,
    repetitions=2,
    slow_repetitions=1,
)


@dataclass(frozen=True)
class Scene:
    """A model on a machine under the name that its rows bear, the sizes, and the prompts of both kinds."""

    name: str
    lm: LanguageModel
    machine: Machine
    sizes: Sizes
    plain: list[str]
    look_dangerous: list[str]

    def prompts(self) -> list[str]:
        """Prompts of extraction and generation, plain and look-dangerous in turn: no order of length."""
        both = [prompt for pair in zip(self.plain, self.look_dangerous, strict=False) for prompt in pair]
        return both[: self.sizes.prompts]

    def batch_tokens(self) -> int:
        """New tokens in a batch of extraction: the default study's on a CPU, more where the device is wide."""
        default: int = study()["extraction"]["batch_tokens"]
        return default if self.machine.device.type == "cpu" else 32 * default


def study() -> dict[str, Any]:
    """The default study's config."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    return config


def bundled(*names: str) -> list[str]:
    """The prompts of bundled files, the files' rows in turn."""
    folder = importlib.resources.files("es2.prompts") / "bundled"
    files = [read_jsonl(Path(str(folder / f"{name}.jsonl"))) for name in names]
    return [row["prompt"] for rows in zip(*files, strict=False) for row in rows]


def scene(name: str, lm: LanguageModel, sizes: Sizes) -> Scene:
    """The scene of a model that lies on its device already."""
    product = 256 if sizes is QUICK else 2048 if lm.device.type == "cpu" else 8192
    machine = Machine(lm.device, lm.base.dtype, product)
    return Scene(name, lm, machine, sizes, bundled("plain_imperative", "plain_general"), bundled("look_dangerous"))


def embedded(folder: Path, device: str) -> LanguageModel:
    """The study's embedded model, as `snakemake` converted it."""
    return load_model(folder, device=device)


def tiny(folder: Path, device: str) -> LanguageModel:
    """A tiny random Llama, made in a folder, for `--quick`."""
    make_random("llama", TINY, bundled("plain_imperative", "look_dangerous"), SEED, folder)
    return load_model(folder, device=device)


def larger(device: str) -> LanguageModel:
    """Random weights in the shape of Qwen2.5-0.5B."""
    return random_weights("qwen2", QWEN_HALF_BILLION, torch.device(device), torch.float32)


def random_weights(
    architecture: str, settings: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> LanguageModel:
    """Random weights, made where they stay; the tokenizer is a small one, which the times do not depend on."""
    tokenizer = tiny_tokenizer(bundled("plain_imperative", "look_dangerous"))
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(SEED)
    with device:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **ends, **settings), dtype=dtype)
    return LanguageModel(model.eval(), tokenizer)


def chat_texts(tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Each prompt in the chat template, as a user of transformers would write it."""
    return [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
