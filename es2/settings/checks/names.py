"""Checks that every catalogue needs: a name is known, a list names each once, a size can be had."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from es2.errors import UserError
from es2.registry import suggest
from es2.settings.lookup import sets_with, split_sizes
from es2.settings.study import Config


def need(where: str, what: str, name: str, known: Collection[str]) -> None:
    """Raise unless `name` is known."""
    if name not in known:
        raise UserError(f"{where}: there is no {what} {name!r}; {suggest(name, known)}")


def check_list(where: str, what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise unless every name of a list is known and stands there once."""
    seen: set[str] = set()
    for name in names:
        need(where, what, name, known)
        if name in seen:
            raise UserError(f"{where}: {name!r} stands there twice; take one away")
        seen.add(name)


def check_sizes(config: Config, where: str, sizes: Mapping[str, int | str], split: str) -> None:
    """Every set with a size is selected, has that split, and has that many prompts where its number is known."""
    for name, size in sizes.items():
        need(where, "prompt set", name, config.prompt_sets)
        if size == 0:
            continue
        if name not in sets_with(config, split):
            raise UserError(
                f"{where}.{name}: this set is not selected or has no split {split}; "
                "select it, or set it to 0 to leave it out"
            )
        held = split_sizes(config, name)[split]
        if isinstance(held, int) and isinstance(size, int) and size > held:
            raise UserError(f"{where}.{name}: {size} prompts of {held} in split {split}; ask for fewer")


def check_window(where: str, window: Sequence[float]) -> None:
    """A window [low, high] does not end before it begins."""
    low, high = window
    if low > high:
        raise UserError(f"{where}: [{low:g}, {high:g}] ends before it begins")
