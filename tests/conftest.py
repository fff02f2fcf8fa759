"""Tiny random chat models of four families, and what most tests need of them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, so that a change alone can break a test; --hypothesis-profile=explore tries new ones.
settings.register_profile("explore", settings())
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
FAMILIES = {
    "llama": {"num_hidden_layers": 4},
    "qwen2": {},
    # Shorter than every prompt and than the shared head, so that the window matters.
    "mistral": {"sliding_window": 6},
    "gemma": {"head_dim": 8},
}
PROMPTS = (
    "Bake bread",
    "How do I write a letter to the council about the broken street lamp?",
    "Hi",
    "List three rivers",
    "Explain the tides in one short sentence",
    "Tell me a story about a fox and a bear",
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models are too small for more than one thread to pay."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Path]:
    """Save a random model of a family; norms and biases are random too, so that no term is trivial."""
    import torch
    from transformers import AutoModelForCausalLM

    from es2.convert import make_random

    def make(family: str, folder: Path, texts: Sequence[str] = PROMPTS, **settings: object) -> Path:
        make_random(family, {**SIZES, **FAMILIES.get(family, {}), **settings}, texts, 0, folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory, make_tiny: Callable[..., Path]) -> dict[str, Path]:
    """One model folder a family."""
    root = tmp_path_factory.mktemp("models")
    return {family: make_tiny(family, root / family) for family in FAMILIES}


@pytest.fixture
def load_model(tiny_folders: dict[str, Path]) -> Callable[..., object]:
    """load_model(family="llama", **options of es2.models.load_model) -> a fresh LanguageModel on the CPU."""
    from es2.models import load_model as load

    def loaded(family: str = "llama", **options: object) -> object:
        return load(tiny_folders[family], **{"device": "cpu", **options})

    return loaded


@pytest.fixture
def scene(load_model: Callable[..., object]) -> object:
    """A tiny Llama with probes on its own embeddings (see scene.Scene)."""
    from scene import Scene

    return Scene(load_model)


@pytest.fixture
def bench(load_model: Callable[..., object], tmp_path: Path) -> object:
    """A tiny parent of which children are trained (see training_bench.Bench)."""
    from training_bench import Bench

    return Bench(load_model, tmp_path)


@pytest.fixture(scope="session")
def drawn() -> dict[str, object]:
    """Every figure of the usual synthetic study (see drawing.figures)."""
    from drawing import figures
    from synthetic import Truth

    return figures(Truth())
