"""Config rows about evaluation: attacks, bundles, answers, general ability."""

from typing import Annotated, Any, Literal

from pydantic import Field

from es2.names import SELF
from es2.settings.types import (
    Count,
    Interval,
    Name,
    Names,
    Positive,
    Probability,
    Row,
    Share,
    Size,
    Sizes,
    Strengths,
    Text,
)


class DirectAttack(Row):
    """The request as it is."""

    kind: Literal["direct"]


class ValidationAnswers(Row):
    """No attack, on validation prompts: for trials of training settings."""

    kind: Literal["validation"]


class ScavAttack(Row):
    """SCAV at one setting: landing probability, least probe accuracy of an edited layer, the probes' C."""

    kind: Literal["scav"]
    p0: Probability
    accuracy: Share
    c: Positive


class Choice(Row):
    """How an adaptive attacker chooses on validation: prompts of its first stage, settings kept for the second."""

    first_prompts: Count
    keep: Count


class BudgetChoice(Choice):
    """The same for an attack over budgets, with the budgets of the first stage and the windows to choose from."""

    first_budgets: Strengths
    c: Strengths
    windows: Annotated[list[Interval], Field(min_length=1)]


class ScavSearch(BudgetChoice):
    """What adaptive SCAV may choose from."""

    rules: Annotated[list[Literal["probability", "projection"]], Field(min_length=1)]
    accuracy: Annotated[list[Share], Field(min_length=1)]


class AdditionSearch(BudgetChoice):
    """What activation addition may choose from."""

    sources: Annotated[list[Literal["mean", "probe"]], Field(min_length=1)]


class AblationSearch(Choice):
    """Which layers' directions ablation may choose from, at how many of the tokens that the chat template puts after a
    prompt (null: all), and the bound of KL on harmless prompts in nats, if any."""

    window: Interval
    positions: Count | None
    harmless_kl: Positive | None


class BudgetAttack(Row):
    """An attack over budgets, its setting chosen for each run and budget on validation."""

    budgets: Strengths
    control_budgets: list[Positive]


class ScavAdaptiveAttack(BudgetAttack):
    """SCAV over budgets."""

    kind: Literal["scav_adaptive"]
    search: ScavSearch


class AdditionAttack(BudgetAttack):
    """Activation addition over budgets."""

    kind: Literal["addition"]
    search: AdditionSearch


class AblationAttack(Row):
    """Refusal-direction ablation."""

    kind: Literal["ablation"]
    search: AblationSearch


class SoftPromptAttack(Row):
    """A universal soft prompt: vectors, their training, and the snapshots to choose from."""

    kind: Literal["soft_prompt"]
    vectors: Count
    snapshots: Annotated[list[Count], Field(min_length=1)]
    batch: Count
    rate: Positive
    bound: Positive
    target_tokens: Count | None
    opening: Text | None
    search: Choice

    @property
    def gradients(self) -> int:
        """Sequences that its training takes gradients on, at most: it goes on to the last snapshot."""
        return max(self.snapshots) * self.batch


class SampledAttack(Row):
    """Several sampled answers to each request, of which the attacker keeps one that complies."""

    kind: Literal["sampled"]
    samples: Annotated[int, Field(ge=2)]
    temperature: Positive


class PublishedAttack(Row):
    """Published attack prompts, replayed: a source in the JailbreakBench artefact format."""

    kind: Literal["published"]
    source: Name


class OwnAttack(Row):
    """A user's attack file, with settings of its own."""

    kind: Literal["file"]
    path: Text
    settings: dict[str, Any]


class PrefillAttack(Row):
    """A beginning of the answer that the attacker gives."""

    kind: Literal["prefill"]
    prefixes: Annotated[list[Text], Field(min_length=1)]
    search: Choice


Attack = Annotated[
    DirectAttack
    | ValidationAnswers
    | ScavAttack
    | ScavAdaptiveAttack
    | AdditionAttack
    | AblationAttack
    | PrefillAttack
    | SoftPromptAttack
    | SampledAttack
    | PublishedAttack
    | OwnAttack,
    Field(discriminator="kind"),
]


class Controls(Row):
    """Controls of an attack: random draws, shuffled-label probe (0 or 1), prompts of each benchmark."""

    random: Size
    shuffled: Annotated[int, Field(ge=0, le=1)]
    prompts: Size


class Bundle(Row):
    """What one job evaluates on one loaded model: an attack on the first n test prompts of some sets."""

    attack: Name
    fitted_on: list[Literal["base", "parent", "self"]] = Field(default_factory=list)
    benchmarks: dict[Name, Size | Literal["all"]]
    runs: Literal["all", "trained"] | Names
    controls: Controls | None = None

    @property
    def on_itself(self) -> bool:
        """Whether its attack is fitted on no other model than the attacked one."""
        return set(self.fitted_on) <= {SELF}


class Generation(Row):
    """Greedy answers: who writes them, their length in tokens, and how many are written at once."""

    backend: Literal["transformers", "vllm"]
    max_new_tokens: Count
    batch_rows: Count


class Extraction(Row):
    """Embedding extraction: new tokens in one batch."""

    batch_tokens: Count


class Reference(Row):
    """A parent's own answers: tokens, held-out harmless prompts that watch and measure the drift, and harmful attack
    prompts whose answers attacks aim at."""

    answer_tokens: Count
    held_out: Sizes
    drift: Sizes
    targets: Sizes


class Task(Row):
    """A task of general ability: items taken, and its source where lm-eval does not fetch it by name."""

    limit: Count | Literal["all"]
    source: Name | None = None


class Ability(Row):
    """General ability by lm-evaluation-harness."""

    tasks: dict[Name, Task]
    batch_rows: Count


class Merge(Row):
    """The check of a merged model: prompts whose greedy answers must agree, largest difference of a logit."""

    prompts: Count
    tolerance: Positive
