"""Bring a model into the study's own folder form: safetensors weights, tokenizer, and a manifest with their hashes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from es2.errors import UserError, is_disk_full
from es2.files import sha256_file, write_json
from es2.hub import from_hub

TINY_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TINY_SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def convert(model: str, row: Mapping[str, Any], sources: Sequence[str], folder: Path) -> None:
    """Make `folder` from a config row of `models`: format gguf (from its one source file), folder, hub, or random
    (whose tokenizer is trained on the source files). Raises UserError naming the config key.
    """
    try:
        if row["format"] == "random":
            texts = [line for path in sources for line in Path(path).read_text(encoding="utf-8").splitlines()]
            make_random(row["architecture"], row["settings"], texts, row["seed"], folder)
        elif row["format"] == "gguf":
            convert_gguf(Path(sources[0]), folder)
        else:
            copy_folder(local_folder(model, row), folder)
    except UserError:
        raise
    except Exception as error:  # of a damaged file, the readers raise what they come upon
        if is_disk_full(error):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"models.{model}: it could not be read as {row['format']} ({said}); check its source"
        ) from error
    about = {key: row[key] for key in ("format", "source", "path", "repo", "revision") if row.get(key)}
    write_manifest(folder, {"model": model, **about})


def local_folder(model: str, row: Mapping[str, Any]) -> Path:
    """The folder of a model given by `path`, or fetched from the hub at a pinned revision."""
    if row["format"] == "folder":
        return Path(row["path"]).expanduser()
    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    return from_hub(f"models.{model}", row, snapshot_download, allow_patterns=patterns)


def convert_gguf(file: Path, folder: Path) -> None:
    """Rebuild a GGUF file's model in `folder` as float32 safetensors.

    A model that transformers reads from GGUF refuses `save_pretrained` (it counts as quantised), so a fresh model
    with the same config takes its state dict.
    """
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    config = AutoConfig.for_model(**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config.eos_token_id = loaded.config.eos_token_id
    _save(model, AutoTokenizer.from_pretrained(**source), folder)


def copy_folder(source: Path, folder: Path) -> None:
    """Save a local Hugging Face model folder again, so that the study's hashes cover what it runs.

    Weights are read from safetensors alone, which cannot run code, and code that comes with a model is not run.
    """
    if not (source / "config.json").is_file():
        raise UserError(f"models: {source} holds no config.json; give the folder of a Hugging Face model")
    local = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(str(source), use_safetensors=True, **local)
    _save(model, AutoTokenizer.from_pretrained(str(source), **local), folder)


def make_random(architecture: str, settings: Mapping[str, Any], texts: Sequence[str], seed: int, folder: Path) -> None:
    """Save a randomly initialised model of a family (llama, qwen2, mistral, gemma) with a tokenizer of `texts`.

    For tests and the smoke study only: such a model shows that the chain runs, nothing else.
    """
    tokenizer = tiny_tokenizer(texts)
    ends = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **ends, **settings)
    torch.manual_seed(seed)
    _save(AutoModelForCausalLM.from_config(config), tokenizer, folder)


def tiny_tokenizer(texts: Sequence[str], vocabulary: int = 1000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`, with a small chat template."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=TINY_SPECIAL, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        extra_special_tokens=TINY_SPECIAL[2:],
    )
    tokenizer.chat_template = TINY_TEMPLATE
    return tokenizer


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write `manifest.json`: the hash of every file in the folder and where the model came from (`about`)."""
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
    write_json(folder / "manifest.json", {"files": files, **about})


def _save(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # What another model left there would count as this one's: a chat template, where this one has none.
    for left in (path for path in folder.iterdir() if path.is_file()):
        left.unlink()
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
