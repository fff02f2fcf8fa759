"""Which run of each method a contest's attackers choose on validation."""

import math

import pandas as pd
import pytest
from verdict_frames import row

from es2.tables.finals import finals_table


def search(half: float) -> pd.DataFrame:
    """An attacker's trials, whose choices reach half of 20 prompts at `half`; another setting did better."""
    chosen = [{"n": 20, "budget": half / 2, "compliance": 0.0}, {"n": 20, "budget": half, "compliance": 0.5}]
    other = [{"n": 12, "budget": half / 4, "compliance": 1.0, "chosen": False}]
    return pd.DataFrame([one | {"chosen": True} for one in chosen] + other)


NEVER = pd.DataFrame({"n": [20, 20], "budget": [0.1, 0.2], "compliance": [0.1, 0.4], "chosen": [True, True]})


def table(found: dict[str, tuple[str, pd.DataFrame, pd.DataFrame]]) -> pd.DataFrame:
    """The table of runs {name: (method, search under addition, search under scav)} on one parent, indexed by both."""
    rows, searches = [], []
    for run, (method, *both) in found.items():
        about = row("es2") | {"run": run, "method": method, "parent": "refusal_sft" if run != "refusal_sft" else "base"}
        rows += [about | {"attack": attack} for attack in ("addition", "scav")]
        searches += both
    return finals_table(rows, searches).set_index(["run", "attack"])


def test_a_run_counts_by_the_attack_it_holds_worst_in_multiples_of_its_parent() -> None:
    found = table(
        {
            "refusal_sft": ("refusal_sft", search(0.01), search(0.1)),
            "es2": ("es2", search(0.03), search(0.5)),
            "es2_one_sided": ("es2", search(0.2), search(0.1)),
            "triplet": ("triplet", search(0.02), search(0.2)),
        }
    )
    assert found.loc[("es2", "addition"), "half_compliance_budget"] == pytest.approx(0.03)
    assert found["ratio"].tolist()[2:] == pytest.approx([3, 5, 20, 1, 2, 2])
    assert found["least_ratio"].tolist()[2:] == pytest.approx([3, 3, 1, 1, 2, 2])
    assert found["chosen"].tolist() == [False, False, True, True, False, False, True, True]


def test_a_parent_that_was_not_attacked_gives_no_ratio_and_its_run_is_not_chosen() -> None:
    found = table({"refusal_sft": ("refusal_sft", search(0.01), search(0.1))})
    assert found["ratio"].isna().all()
    assert not found["chosen"].any()


def test_a_budget_never_reached_is_the_highest() -> None:
    found = table(
        {
            "refusal_sft": ("refusal_sft", search(0.01), search(0.1)),
            "es2": ("es2", search(0.05), search(0.6)),
            "es2_never": ("es2", NEVER, NEVER),
        }
    )
    assert math.isinf(found.loc[("es2_never", "scav"), "least_ratio"])
    assert found["chosen"].tolist()[2:] == [False, False, True, True]


def test_a_run_that_falls_where_its_parent_never_does_is_below_one_that_holds_as_long() -> None:
    found = table(
        {
            "refusal_sft": ("refusal_sft", search(0.01), NEVER),
            "es2_fell": ("es2", search(0.05), search(0.1)),
            "es2_held": ("es2", search(0.02), NEVER),
        }
    )
    assert found["ratio"].tolist()[2:] == pytest.approx([5, 0.5, 2, 1])
    assert found["chosen"].tolist()[2:] == [False, False, True, True]


def test_a_budget_that_only_the_first_stage_tried_is_no_bound() -> None:
    wide = pd.concat([NEVER, pd.DataFrame([{"n": 12, "budget": 9.0, "compliance": 0.0, "chosen": False}])])
    found = table({"refusal_sft": ("refusal_sft", search(0.01), wide), "es2": ("es2", search(0.05), search(0.1))})
    assert found.loc[("es2", "scav"), "ratio"] == pytest.approx(0.5)


def test_a_parent_that_exists_once_counts_for_each_seed() -> None:
    rows = [row("base") | {"run": "base", "method": "base", "parent": "", "attack": "addition"}]
    rows += [
        row("es2") | {"run": "es2", "method": "es2", "parent": "base", "attack": "addition", "seed": seed}
        for seed in (0, 1, 2)
    ]
    found = finals_table(rows, [search(0.01), search(0.03), search(0.02), search(0.04)])
    assert found["ratio"].tolist()[1:] == pytest.approx([3, 2, 4])


def test_runs_on_the_model_as_shipped_are_set_against_its_own_search() -> None:
    rows = [row("base") | {"run": "base", "method": "base", "parent": "", "attack": "addition"}]
    rows += [row("es2") | {"run": "es2", "method": "es2", "parent": "base", "attack": "addition"}]
    found = finals_table(rows, [search(0.01), search(0.03)])
    assert found["ratio"].tolist()[1] == pytest.approx(3)
    assert found["chosen"].tolist() == [False, True]
