"""Which runs a run is compared with: one rule for the tables and for the check of the config. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence


def compared_with(
    run: str, parents: Mapping[str, str | None], control: str, pairs: Iterable[Sequence[str]]
) -> list[str]:
    """The runs that `run` is compared with: its parent, the control on the same parent, those that `pairs` set it
    against. `parents` has what each run starts from, nothing for an untrained one."""
    parent = parents.get(run)
    sibling = [control] if control in parents and parents[control] == parent else []
    named = [b for a, b in pairs if a == run]
    return [other for other in dict.fromkeys([parent, *sibling, *named]) if other and other != run]
