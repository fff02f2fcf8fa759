"""Config rows about probes and training."""

from typing import Annotated, Any, Literal

from pydantic import Field

from es2.settings.types import (
    Count,
    Interval,
    Name,
    Positive,
    Probability,
    Row,
    Size,
    Sizes,
    Strengths,
    Text,
    Weight,
)


class LayerChoice(Row):
    """How `layers: auto` chooses: number of layers, window of relative depth, least gap between two."""

    count: Count
    window: Interval
    gap: Count


class Probes(Row):
    """Linear probes: the penalties fitted, the one that metrics use, the P0 of the SCAV step, resamples."""

    c: Strengths
    metric_c: Positive
    p0: Probability
    bootstrap: Count
    layers: LayerChoice


class Lora(Row):
    """The adapter."""

    rank: Count
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Text | Annotated[list[Text], Field(min_length=1)]


class Stop(Row):
    """Bounds of the collapse stop: KL on held-out harmless prompts in nats, ratio of embedding norms."""

    kl_heldout: Positive
    norm_ratio: Annotated[float, Field(gt=1)]


class SeparationTerm(Row):
    """The separation loss."""

    form: Literal["plain", "scale_free", "bounded"]
    target: Positive
    distance: Literal["pairwise", "centroid"]
    layers: Literal["auto"] | Annotated[list[Size], Field(min_length=1)]
    weight: Weight


class KlTerm(Row):
    """KL to the parent on harmless prompts."""

    weight: Weight


class HoldTerms(Row):
    """KL to the parent on its refusals, and relative drift of safe embeddings."""

    refusals: Weight
    safe_drift: Weight


class SftTerms(Row):
    """Refusal fine-tuning: source of refusal texts, weight of the model's own answers, how much of each counts."""

    refusals: Name
    own_answers: Weight
    answer_tokens: Count


class Training(Row):
    """Everything that a training run reads; a run's row overrides single keys."""

    lora: Lora
    steps: Count
    learning_rate: Positive
    warmup_steps: Size
    decay: Literal["constant", "linear"]
    clip: Positive
    weight_decay: Weight
    batch: Sizes
    evaluate_every: Count
    checkpoint_every: Count
    stop: Stop
    separation: SeparationTerm
    kl: KlTerm
    hold: HoldTerms
    sft: SftTerms


class Run(Row):
    """A run: its method, the run it starts from, and what it overrides of `training`."""

    method: Text
    on: Name | None = None
    training: dict[str, Any] = Field(default_factory=dict)
