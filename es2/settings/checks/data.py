"""What a study takes from the catalogues, and what these say of sources and prompt sets."""

from collections.abc import Mapping

from es2.errors import UserError
from es2.settings.checks.names import check_list, need
from es2.settings.data import model_sources
from es2.settings.lookup import sets_with
from es2.settings.study import Config


def check_selection(config: Config) -> None:
    """Every selected name exists, and the selected sets have the splits that probes need, with both labels."""
    select = config.select
    lists: tuple[tuple[str, str, list[str], Mapping[str, object]], ...] = (
        ("models", "model", select.models, config.models),
        ("runs", "run", select.runs, config.runs),
        ("prompt_sets", "prompt set", select.prompt_sets, config.prompt_sets),
        ("bundles", "bundle", select.bundles, config.bundles),
        ("judges", "judge", select.judges, config.judges),
    )
    for key, what, names, known in lists:
        check_list(f"select.{key}", what, names, known)
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError("seeds: a seed stands there twice; take one away")
    for label in ("harmful", "safe"):
        for split in ("attack", "validation", "test"):
            if not any(config.prompt_sets[name].label == label for name in sets_with(config, split)):
                raise UserError(
                    f"select.prompt_sets: no {label} set has a split {split}, which the probes need; "
                    "select one, or give one of its prompts to that split"
                )


def check_data(config: Config) -> None:
    """Every model, prompt set and ability task names sources that exist; the splits of a set can be drawn."""
    for name, model in config.models.items():
        for source in model_sources(model):
            need(f"models.{name}", "source", source, config.sources)
    for name, row in config.prompt_sets.items():
        check_list(f"prompt_sets.{name}.sources", "source", row.sources, config.sources)
        if list(row.splits.values()).count("rest") > 1:
            raise UserError(f"prompt_sets.{name}.splits: two splits cannot both have the rest; number one")
        if not any(row.splits.values()):
            raise UserError(f"prompt_sets.{name}.splits: every split is empty; give one some prompts")
    for name, task in config.ability.tasks.items():
        if task.source is not None:
            need(f"ability.tasks.{name}.source", "source", task.source, config.sources)
