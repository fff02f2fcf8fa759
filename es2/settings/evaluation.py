"""Config rows about evaluation: attacks, bundles, judges, answers, general ability."""

from typing import Annotated, Literal

from pydantic import Field

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


class ScavAttack(Row):
    """SCAV at one setting: landing probability, least probe accuracy of an edited layer, the probes' C."""

    kind: Literal["scav"]
    p0: Probability
    accuracy: Share
    c: Positive


class Search(Row):
    """What the adaptive attacker may choose from, and how its first stage is kept short."""

    rules: Annotated[list[Literal["probability", "projection"]], Field(min_length=1)]
    c: Strengths
    accuracy: Annotated[list[Share], Field(min_length=1)]
    windows: Annotated[list[Interval], Field(min_length=1)]
    first_budgets: Strengths
    first_prompts: Count
    keep: Count


class ScavAdaptiveAttack(Row):
    """SCAV over budgets, its setting chosen for each run and budget on validation."""

    kind: Literal["scav_adaptive"]
    budgets: Strengths
    control_budgets: list[Positive]
    search: Search


Attack = Annotated[DirectAttack | ScavAttack | ScavAdaptiveAttack, Field(discriminator="kind")]


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


class Judge(Row):
    """A judge of answers."""

    kind: Text


class Generation(Row):
    """Greedy answers: their length in tokens, and how many are written at once."""

    max_new_tokens: Count
    batch_rows: Count


class Extraction(Row):
    """Embedding extraction: new tokens in one batch."""

    batch_tokens: Count


class Reference(Row):
    """A parent's own answers: tokens, and held-out harmless prompts that watch and measure the drift."""

    answer_tokens: Count
    held_out: Sizes
    drift: Sizes


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
