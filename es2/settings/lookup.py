"""What the rows of a config say of each other: lines of runs, sets with a split, bundles in use."""

from collections.abc import Iterable

from es2.settings.judges import judging_models
from es2.settings.study import Config


def with_ancestors(config: Config, runs: Iterable[str]) -> list[str]:
    """`runs` in their order, each after the runs that it starts from."""
    found: dict[str, None] = {}
    for name in runs:
        chain, at = [name], config.runs[name].on
        while at is not None:
            chain.append(at)
            at = config.runs[at].on
        found.update(dict.fromkeys(reversed(chain)))
    return list(found)


def sets_with(config: Config, split: str) -> list[str]:
    """Selected sets that have prompts in a split."""
    chosen = config.select.prompt_sets
    return [name for name in chosen if split_sizes(config, name).get(split, 0) != 0]


def split_sizes(config: Config, name: str) -> dict[str, int | str]:
    """How many prompts of a set each of its splits gets: a number, or `rest`."""
    return dict(config.prompt_sets[name].splits.items())


def used_bundles(config: Config) -> list[str]:
    """Bundles that the study or one of its sweeps takes."""
    swept = [name for sweep in config.sweeps.values() for name in sweep.bundles]
    return list(dict.fromkeys([*config.select.bundles, *swept]))


def used_models(config: Config) -> list[str]:
    """Models that the study, one of its sweeps or a selected judge takes."""
    swept = [name for sweep in config.sweeps.values() for name in sweep.models or []]
    judging = judging_models(config.judges[name] for name in config.select.judges)
    return list(dict.fromkeys([*config.select.models, *swept, *judging]))
