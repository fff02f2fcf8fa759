"""The whole config: what a study selects, who is who in its report, and the catalogues."""

from typing import Annotated, Literal

from pydantic import Field

from es2.settings.data import ModelRow, PromptSet, Source
from es2.settings.evaluation import Ability, Attack, Bundle, Extraction, Generation, Merge, Reference
from es2.settings.judges import Judge
from es2.settings.training import Probes, Run, Training
from es2.settings.types import Count, Name, Names, Positive, Row, Share, Size, Strengths, Text


class Select(Row):
    """What the study takes from the catalogues."""

    models: Names
    runs: Names
    prompt_sets: Names
    bundles: Names
    judges: Names


class Primary(Row):
    """The one primary endpoint: `run` against another under an attack, at `factor` times the reference's budget."""

    run: Name
    against: Name
    attack: Name
    benchmark: Name
    measure: Literal["refusal", "compliance"]
    factor: Positive | None = None


class Comparison(Row):
    """At which budgets runs are compared: factors of the reference's half-compliance budget on validation, as the
    search of each attack over budgets found it.

    `pairs`: runs compared beyond each with its parent and with the control on the same parent.
    """

    reference: Name
    factors: Strengths
    pairs: list[Annotated[list[Name], Field(min_length=2, max_length=2)]]


class Sweep(Row):
    """Runs outside the main tables, with the bundles that evaluate them, on the selected models or on others.

    `ability`: whether drift and general ability are measured too, which the Pareto figure needs.
    """

    runs: Names
    bundles: Names
    models: Names | None = None
    ability: bool = False


class Trials(Row):
    """Trials of training settings: the sweeps that hold them, and what a trial must keep to on validation to be chosen.

    Bounds: KL to the parent on held-out harmless prompts (nats), share of plain prompts refused, and what it
    adds to its parent's share of plain prompts answered degenerately.
    """

    sweeps: Names
    kl_heldout: Positive
    plain_refused: Share
    plain_degenerate_added: Share


class Report(Row):
    """Who is who in figures and findings, and longer names of runs, models and sets."""

    parent: Name
    control: Name
    main: Name
    plain: Name
    look_dangerous: Name
    labels: dict[Name, Text]


class Config(Row):
    """A whole study."""

    name: Name
    seeds: Annotated[list[Size], Field(min_length=1)]
    splits_seed: Size
    threads: Count
    gpus: Size
    select: Select
    primary: Primary
    comparison: Comparison
    report: Report
    sources: dict[Name, Source]
    models: dict[Name, ModelRow]
    prompt_sets: dict[Name, PromptSet]
    extraction: Extraction
    probes: Probes
    reference: Reference
    training: Training
    runs: dict[Name, Run]
    sweeps: dict[Name, Sweep] = Field(default_factory=dict)
    trials: Trials
    attacks: dict[Name, Attack]
    bundles: dict[Name, Bundle]
    judges: dict[Name, Judge]
    generation: Generation
    ability: Ability
    merge: Merge
    release: list[Name]
