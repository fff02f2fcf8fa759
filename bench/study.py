"""The default study's time, minute by minute, from its released costs: what it goes to, and what 20 would mean."""

from dataclasses import dataclass

import pandas as pd

from bench.goals import LOADING

GOAL = 20.0
CORES = 2
BOTH_CORES = {"finetune", "record_reference"}  # the other rules take one core each, two jobs side by side
LOADING_RULES = {
    *BOTH_CORES, "extract_embeddings", "generate_answers", "measure_drift", "measure_turning", "merge_adapter",
    "run_lm_eval",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Jobs of a rule, of one bundle if it is named; what they show, and whether the rest would run without."""

    name: str
    rule: str
    shows: str
    bundle: str = ""
    spared: bool = False


PARTS = (
    Part("adaptive SCAV", "generate_answers", "half-compliance budgets, the robustness curve", "scav_adaptive", True),
    Part("SCAV, paper's setting", "generate_answers", "the paper's attacker, and its controls", "scav", True),
    Part("direct request", "generate_answers", "DSR, over-refusal, degenerate answers", "direct"),
    Part("fine-tuning", "finetune", "every trained run"),
    Part("the parents' own answers", "record_reference", "the KL and hold terms, and their watch"),
    Part("embeddings", "extract_embeddings", "separability, and the probes that attacks use"),
    Part("MMLU", "run_lm_eval", "whether general ability is kept", spared=True),
    Part("drift", "measure_drift", "KL to parent and base, perplexity, agreement", spared=True),
)


def minutes(cost: pd.DataFrame) -> pd.Series:
    """Minutes of the whole machine that each job takes."""
    share = cost["rule"].isin(BOTH_CORES).map({True: 1.0, False: 1.0 / CORES})
    return cost["seconds"] / 60 * share


def by_part(cost: pd.DataFrame) -> list[tuple[Part, int, float]]:
    """Parts with their number of jobs and minutes, the longest first."""
    found = []
    for part in PARTS:
        mine = cost["rule"] == part.rule
        if part.bundle:
            mine &= cost["job"].str.rpartition("/")[2] == part.bundle
        found.append((part, int(mine.sum()), float(minutes(cost)[mine].sum())))
    return sorted(found, key=lambda one: -one[2])


def rows(cost: pd.DataFrame) -> list[list[str]]:
    """The table: a head, a row a part, the rest in one row, and the sum."""
    parts, total = by_part(cost), float(minutes(cost).sum())
    rest = len(cost) - sum(jobs for _, jobs, _ in parts), total - sum(time for *_, time in parts)
    body = [[part.name, str(jobs), f"{time:.1f}", f"{time / total:.0%}", part.shows] for part, jobs, time in parts]
    body.append(["all others", str(rest[0]), f"{rest[1]:.1f}", f"{rest[1] / total:.0%}", "data, tables, figures, card"])
    body.append(["together", str(len(cost)), f"{total:.1f}", "", ""])
    return [["part", "jobs", "minutes of two cores", "share", "what it shows"], *body]


def told(cost: pd.DataFrame) -> str:
    """How much is too much, and what would have to go."""
    total, going = float(minutes(cost).sum()), 0.0
    gone: list[str] = []
    if total <= GOAL:
        return f"Packed without a gap that is {total:.1f} minutes, within the {GOAL:.0f} wanted."
    for part, _, time in by_part(cost):
        if part.spared and total - going > GOAL:
            gone, going = [*gone, f"{part.name} ({time:.1f})"], going + time
    return (
        f"Packed without a gap that is {total:.1f} minutes. For {GOAL:.0f}, {total - GOAL:.1f} would have to go: "
        f"{', '.join(gone)}, which leaves {total - going:.1f}. They are what the study is for, and stay."
    )


def loading(cost: pd.DataFrame, graph: pd.DataFrame) -> str:
    """What starting takes of all jobs' seconds, by what a start takes (columns what, seconds)."""
    start = graph.set_index("what")["seconds"]
    loads = int(cost["rule"].isin(LOADING_RULES).sum())
    seconds = loads * start["model_start"] + (len(cost) - loads) * start["script_start"]
    total = cost["seconds"].sum()
    return (
        f"In the default study {loads} jobs load a model and {len(cost) - loads} do not. At these seconds for a start "
        f"imports and loading take {seconds / 60:.1f} of the {total / 60:.0f} minutes of all its jobs, "
        f"{seconds / total:.0%}; the goal is at most {LOADING:.0%}."
    )
