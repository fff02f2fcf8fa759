"""The goals of the bench: what each path is to reach against its anchor."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound on a row's ratio, from below, or from above for a cost; and on its fraction of the limit."""

    ratio: float
    cost: bool = False
    fraction: float | None = None

    def __str__(self) -> str:
        """As a table shows it."""
        bound = f"≤ {self.ratio:g}" if self.cost else f"≥ {self.ratio:g}"
        return bound if self.fraction is None else f"{bound}, ≥ {self.fraction:.0%} of the limit"


GOALS: dict[tuple[str, str], Goal | None] = {
    ("extraction", "one_prompt_at_a_time"): Goal(4.0, fraction=0.65),
    ("extraction", "batched_hidden_states"): Goal(2.5, fraction=0.65),
    ("extraction_bfloat16", "float32"): None,
    ("probes", "scikit_learn_loop"): Goal(10.0),
    ("es2_step", "two_models_dynamic_padding"): Goal(2.5),
    ("es2_step", "two_models_padded_512"): Goal(20.0),
    ("generation", "unsorted_batches_of_8"): Goal(2.0),
    ("scav_generation", "plain_generation"): Goal(1.15, cost=True),
    ("search", "one_setting_at_a_time"): Goal(1.5),
    ("ablations", "one_direction_at_a_time"): Goal(1.2),
    ("head", "one_product"): Goal(1.2),
}
"""By path and anchor; None where a row informs a choice and there is nothing to reach."""

GRAPH_GOALS = {"plan": 60.0, "no_change": 15.0, "script_start": 3.0, "model_start": None}
"""Seconds; the plan is of 10,000 jobs. What starting a model may take is a share of the study, `LOADING`."""

LOADING = 0.15
"""Of the default study's processor seconds, what imports and the loading of models may take."""
