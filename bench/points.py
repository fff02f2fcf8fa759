"""`python -m bench.points`: measured points beside the computed costs of bench.growth; saves results/bench/points.csv.

Random weights in the shape of a published model, on the CUDA device where there is one: embedding prompts, one ES2
step forward and backward, and greedy answers, through the same functions as the study. Columns: shape, path, device,
dtype, of (what was run), seconds (median of three after a warm-up), tokens_per_second, tflop_per_second (the
floating-point operations that bench.growth counts, of the tokens that were run), fraction_of_product (that rate over
the rate of a large matrix product in the same precision), peak_gb (the device's memory; empty on a CPU).
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench import growth
from bench.extraction import tokens_to_run
from bench.growth import SHAPES, Shape
from bench.measure import Machine
from bench.scene import SEED, bundled, random_weights, study
from bench.steps import DEPTHS, training_data
from es2.embeddings import extract
from es2.files import write_csv
from es2.generation import generate
from es2.methods.separation import Separation
from es2.models import LanguageModel
from es2.training import add_lora

COLUMNS = (
    "shape", "path", "device", "dtype", "of", "seconds", "tokens_per_second", "tflop_per_second", "fraction_of_product",
    "peak_gb",
)  # fmt: skip
REPETITIONS = 3
TINY = Shape("tiny", 2, 32, 64, 4, 2, 8, 8192)


@dataclass(frozen=True)
class Amounts:
    """Prompts embedded, prompts of a step, answers, tokens of an answer, tokens in a batch of extraction, rows in a
    batch of answers, and the size of the matrix product that gives the rate."""

    prompts: int
    step: int
    answers: int
    new_tokens: int
    batch_tokens: int
    rows: int
    product: int


FULL = Amounts(growth.PROMPTS, growth.STEP_PROMPTS, 256, growth.ANSWER, 16384, 256, 8192)
QUICK = Amounts(12, 4, 6, 4, 512, 8, 128)


@dataclass(frozen=True)
class Point:
    """One path to time: its name, what is run, the call, the tokens that it runs and the FLOP that they take."""

    path: str
    of: str
    call: Callable[[], Any]
    tokens: int
    flop: float


def random_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """A Llama of the shape with random weights."""
    settings = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": shape.tied,
    }
    return random_weights("llama", settings, device, dtype)


def prompts(number: int) -> list[str]:
    """The project's harmless prompts in turn, numbered where they come again."""
    texts = bundled("plain_imperative", "look_dangerous")
    return [texts[place] if place < len(texts) else f"{texts[place % len(texts)]} ({place})" for place in range(number)]


def points(lm: LanguageModel, shape: Shape, amounts: Amounts) -> Iterator[Point]:
    """The three paths; the step comes last, for it leaves an adapter on the model."""
    many = prompts(amounts.prompts)
    tokens = tokens_to_run(lm.chat_tokens(many))
    flop = 2.0 * shape.block_weights * tokens
    yield Point("extraction", f"{len(many)} prompts", lambda: extract(lm, many, amounts.batch_tokens), tokens, flop)

    asked = lm.chat_tokens(many[: amounts.answers])
    lengths = [len(one.tokens) for one in generate(lm, asked, amounts.new_tokens, amounts.rows)]
    tokens = tokens_to_run(asked) + sum(lengths)
    flop = 2.0 * shape.block_weights * tokens + 2.0 * shape.head_weights * sum(lengths)
    of = f"{len(asked)} answers of {amounts.new_tokens} tokens"
    yield Point("answers", of, lambda: generate(lm, asked, amounts.new_tokens, amounts.rows), tokens, flop)

    settings = study()["training"]
    texts = bundled("look_dangerous")[: amounts.step // 2], bundled("plain_imperative")[: amounts.step // 2]
    layers = [int(depth * (shape.layers - 1)) for depth in DEPTHS]
    data = training_data(lm, *texts, layers, min(growth.STEP_ANSWER, amounts.new_tokens))
    add_lora(lm, settings["lora"], SEED)
    method = Separation(settings, data)
    examples = [method.example(prompt_id, 0) for prompt_id in data.references]

    def step() -> None:
        lm.model.train()
        method.loss(lm, examples, method.run(lm, examples)).total.backward()
        lm.model.zero_grad()

    written = sum(len(one.answer_tokens) for one in examples)
    tokens = tokens_to_run([one.prompt_tokens for one in examples]) + written
    flop = 4.0 * shape.block_weights * tokens + 6.0 * shape.head_weights * written
    yield Point("es2_step", f"{len(examples)} prompts, LoRA rank {settings['lora']['rank']}", step, tokens, flop)


def measured(shape: Shape, machine: Machine, amounts: Amounts) -> Iterator[dict[str, Any]]:
    """A row for each path of a shape."""
    cuda = machine.device.type == "cuda"
    lm = random_model(shape, machine.device, machine.dtype)
    for point in points(lm, shape, amounts):
        point.call()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(machine.seconds(point.call) for _ in range(REPETITIONS))
        peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
        rate = point.flop / seconds
        row = (
            shape.name,
            point.path,
            torch.cuda.get_device_name() if cuda else "cpu",
            str(machine.dtype).removeprefix("torch."),
            point.of,
            seconds,
            point.tokens / seconds,
            rate / 1e12,
            rate / machine.flop_per_second(),
            peak,
        )
        yield dict(zip(COLUMNS, row, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m bench.points", description=__doc__)
    names = [shape.name for shape in SHAPES]
    parser.add_argument("--shapes", nargs="+", choices=names, default=["Llama-3.1-8B"], help="of bench.growth")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--quick", action="store_true", help="a tiny shape in seconds: that it runs")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder for points.csv")
    options = parser.parse_args(argv)
    amounts = QUICK if options.quick else FULL
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = Machine(device, getattr(torch, options.dtype), amounts.product)
    rows = []
    for shape in [TINY] if options.quick else [shape for shape in SHAPES if shape.name in options.shapes]:
        for row in measured(shape, machine, amounts):
            rows.append(row)
            print(
                ", ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()
                )
            )
    write_csv(pd.DataFrame(rows, columns=list(COLUMNS)), options.out / "points.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
