"""The prompts that a reference is recorded on, and who is who in comparisons and the report."""

from collections.abc import Sequence

from es2.compared import compared_with
from es2.errors import UserError
from es2.names import SELF
from es2.registry import UNTRAINED
from es2.settings.checks.names import check_list, check_sizes, need
from es2.settings.lookup import with_ancestors
from es2.settings.study import Config


def check_reference(config: Config) -> None:
    """The prompts on which parents are recorded and drift is read have the label that this needs."""
    reference = config.reference
    for key, sizes, split, label in (
        ("held_out", reference.held_out, "validation", "safe"),
        ("drift", reference.drift, "test", "safe"),
        ("targets", reference.targets, "attack", "harmful"),
    ):
        where = f"reference.{key}"
        check_sizes(config, where, sizes, split)
        for name, size in sizes.items():
            if size and config.prompt_sets[name].label != label:
                what = (
                    "drift is read on harmless prompts" if label == "safe" else "attacks aim at answers to harmful ones"
                )
                raise UserError(f"{where}.{name}: {what}; name a {label} set")
        if label == "safe" and not any(sizes.values()):
            raise UserError(f"{where}: every set has size 0; give a safe one some prompts")


def check_report(config: Config) -> None:
    """The report, the primary endpoint, the comparisons and the release name what is selected."""
    report = config.report
    for key in ("parent", "control"):
        need(f"report.{key}", "run", getattr(report, key), config.runs)
    for key in ("plain", "look_dangerous"):
        need(f"report.{key}", "selected prompt set", getattr(report, key), config.select.prompt_sets)
    selected = with_ancestors(config, config.select.runs)
    need("report.main", "selected run", report.main, selected)
    for run in (report.main, report.control):
        start = config.runs[run].on
        if start is not None and start != report.parent:
            raise UserError(
                f"report.parent: it is {report.parent}, and the run {run} starts from {start}, so that the page would "
                "name the wrong parent; name one run in both places"
            )
    need("comparison.reference", "selected run", config.comparison.reference, selected)
    for run in (name for pair in config.comparison.pairs for name in pair):
        need("comparison.pairs", "run", run, config.runs)
    _check_primary(config, selected)
    check_list("release", "selected run", config.release, selected)
    for name in config.release:
        if config.runs[name].method == UNTRAINED:
            raise UserError(f"release: {name!r} is untrained and has no adapter to merge; take it away")


def _check_primary(config: Config, selected: Sequence[str]) -> None:
    """The primary endpoint is one row of `paired.csv`, for each model and seed: neither none nor several."""
    primary, comparison = config.primary, config.comparison
    need("primary.run", "selected run", primary.run, selected)
    need("primary.against", "selected run", primary.against, selected)
    need("primary.attack", "attack", primary.attack, config.attacks)
    need("primary.benchmark", "benchmark", primary.benchmark, ["pooled", *config.select.prompt_sets])
    over_budgets = hasattr(config.attacks[primary.attack], "budgets")
    if over_budgets and primary.factor is None:
        raise UserError(f"primary.factor: {primary.attack} is tried over budgets; name one of comparison.factors")
    if not over_budgets and primary.factor is not None:
        raise UserError(f"primary.factor: {primary.attack} is not tried over budgets; set it to null")
    selected_bundles = [config.bundles[name] for name in config.select.bundles]
    tried = [bundle.fitted_on for bundle in selected_bundles if bundle.attack == primary.attack]
    if tried and not any(SELF in fitted_on or not fitted_on for fitted_on in tried):
        raise UserError(
            f"primary.attack: no bundle of select.bundles tries {primary.attack} as fitted on the run itself; add one"
        )
    if primary.factor is not None and primary.factor not in comparison.factors:
        raise UserError(f"primary.factor: {primary.factor:g} is none of comparison.factors; add it there")
    parents = {name: run.on for name, run in config.runs.items()}
    compared = compared_with(primary.run, parents, config.report.control, comparison.pairs)
    if primary.against not in compared:
        raise UserError(
            f"primary.against: {primary.run} is compared with {', '.join(compared) or 'no run'}, not with "
            f"{primary.against}; name one of these, or add the pair to comparison.pairs"
        )
