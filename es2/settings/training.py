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
    Share,
    Size,
    Sizes,
    Strengths,
    Text,
    Weight,
)


class LayerChoice(Row):
    """A rule for layers: their number, a window of relative depth, the least gap of relative depth between two."""

    count: Count
    window: Interval
    gap: Share


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
    layers: Literal["auto"] | LayerChoice | Annotated[list[Size], Field(min_length=1)]
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


class ReroutingTerms(Row):
    """Circuit breakers and what shares its data: alpha of the schedule; the weight of the retain loss; the share of
    harmful prompts that retain the parent's refusal; the length of RMU's random target, in mean norms of the parent."""

    alpha: Positive
    retain: Positive
    refusals: Share
    scale: Positive


class TripletTerms(Row):
    """Triplet separation: weights of the two losses and their margins, in mean norms of the parent."""

    safe: Weight
    harmful: Weight
    margin_safe: Positive
    margin_harmful: Positive


Range = Annotated[list[Weight], Field(min_length=2, max_length=2)]


class SoftPromptTerms(Row):
    """The soft prompt of training: its number of vectors, steps of its own training and prompts of each, length of a
    step in mean sizes of an embedding's entry, and bound on a vector in mean norms of the token embeddings; where it is
    `carried` a draw goes on with the vectors of the last, until the attacker is fitted again."""

    vectors: Count
    steps: Count
    batch: Count
    rate: Positive
    bound: Positive
    carried: bool


class AdversarialTerms(Row):
    """Training under the attack: weights of refusals and harmless answers held there and of the latter held without an
    edit (`safe_unedited`), into how many `parts` a batch is divided, each under an edit of its own, and what edits are
    drawn from.

    `strengths`: t of the landing; `budgets`: length of the push over the mean norm; `start` and `end`: relative depth
    of the first and last edited layer; `depths`: relative depth of the layer whose mean difference is taken out;
    `positions`: at so many of the tokens that the chat template puts after a prompt it is read, from the last back (all
    if null); it is one of these directions, of the `hardest` alone if that is a number; `answer_tokens`: of an answer
    so many are held by these terms (all if null); `soft_prompt`, trained each time that it is drawn; `fit_prompts` of
    each class, fitted again every `refit_every` steps.
    """

    refusals: Weight
    safe: Weight
    safe_unedited: Weight
    parts: Count
    edits: Annotated[list[Literal["landing", "push", "project", "ablation", "soft_prompt"]], Field(min_length=1)]
    strengths: Range
    budgets: Range
    start: Interval
    end: Interval
    depths: Interval
    positions: Count | None
    hardest: Count | None
    answer_tokens: Count | None
    soft_prompt: SoftPromptTerms
    c: Strengths
    fit_prompts: Count
    refit_every: Count


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
    accumulate: Count
    gradient_checkpointing: bool
    evaluate_every: Count
    checkpoint_every: Count
    stop: Stop
    separation: SeparationTerm
    kl: KlTerm
    hold: HoldTerms
    sft: SftTerms
    rerouting: ReroutingTerms
    triplet: TripletTerms
    adversarial: AdversarialTerms


class Adapter(Row):
    """An adapter trained elsewhere: the sources of its two files in peft's format."""

    config: Name
    weights: Name


class Run(Row):
    """A run: its method, the run it starts from, and what it overrides of `training`; or the adapter it is."""

    method: Text
    on: Name | None = None
    adapter: Adapter | None = None
    training: dict[str, Any] = Field(default_factory=dict)
