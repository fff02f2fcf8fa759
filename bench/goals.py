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


GOALS = {
    ("extraction", "one_prompt_at_a_time"): Goal(4.0, fraction=0.65),
    ("extraction", "batched_hidden_states"): Goal(2.5, fraction=0.65),
    ("probes", "scikit_learn_loop"): Goal(10.0),
    ("es2_step", "two_models_dynamic_padding"): Goal(2.5),
    ("es2_step", "two_models_padded_512"): Goal(20.0),
    ("generation", "unsorted_batches_of_8"): Goal(2.0),
    ("scav_generation", "plain_generation"): Goal(1.15, cost=True),
    ("search", "one_setting_at_a_time"): Goal(1.5),
    ("head", "one_product"): Goal(1.2),
}
GRAPH_GOALS = {"plan": 60.0, "no_change": 15.0, "script_start": 3.0}  # seconds; the plan is of 10,000 jobs
