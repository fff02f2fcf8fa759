"""What jobs ask a cluster for: memory, minutes, disk and GPUs, by the size of their model."""

import math
from collections.abc import Callable

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weights(model: str, dtype: str | None = None) -> float:
    """MB that a model's weights take in its own type or in another."""
    row = study.config.models[model]
    return 1000 * row.billions * BYTES[dtype or row.dtype]


def memory(apart: int, copies: float, dtype: str | None = None) -> Callable:
    """A resource: MB of memory, `apart` for all that is not weights and so many copies of these; half more at a retry.

    Both follow the peaks of the 135M model (docs/reference/cost.csv) with room: 2 copies load a model and fold an
    adapter in, 3 train, 0.5 is what a larger model's embeddings grow by. A merge is done in float32.
    """
    return lambda wildcards, attempt: at_retry(apart + copies * weights(wildcards.model, dtype), attempt)


def attack_memory(wildcards, attempt) -> int:
    """A resource: MB of memory for answers under an attack, with another copy where it asks another model too."""
    others = set(fitted_on(wildcards)) - {SELF}
    asks = others and attack(wildcards)["kind"] in ("ablation", "soft_prompt")
    return memory(5000, 3 if asks else 2)(wildcards, attempt)


def minutes(small: int) -> Callable:
    """A resource: minutes that end a job which hangs, not a forecast; `small` is ample for the 135M model.

    On a GPU as much again for every 10 billion parameters, so that a job of 8 billion stays under a day; on a CPU for
    every billion.
    """
    share = 10 if GPUS else 1
    return lambda wildcards, attempt: at_retry(
        small * (1 + study.config.models[wildcards.model].billions / share), attempt
    )


def disk(copies: float, dtype: str | None = None) -> Callable:
    """A resource: MB of disk that stay taken, in copies of a model's weights."""
    return lambda wildcards: math.ceil(copies * weights(wildcards.model, dtype))


def at_retry(amount: float, attempt: int) -> int:
    """What a job asks for: half more at each new attempt."""
    return math.ceil(amount * (1 + attempt) / 2)


def judging_memory(wildcards, attempt) -> int:
    """MB for a judge's job: what answering takes with its model, more for judgezoo's classifiers of 2 to 13 billion
    parameters, little where the judge stands behind an endpoint."""
    if study.config.judges[wildcards.judge].kind == "judgezoo":
        return at_retry(32000, attempt)
    model = study.judging(wildcards.judge)
    return at_retry(5000 + 2 * weights(model) if model else 3000, attempt)


def judging_gpus(wildcards) -> int:
    """GPUs for a judge's job: none where the judge stands behind an endpoint."""
    return 0 if getattr(study.config.judges[wildcards.judge], "endpoint", None) else GPUS
