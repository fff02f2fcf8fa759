"""A key that stands twice in one mapping of a config file: YAML would take the second and say nothing."""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from es2.errors import UserError


def check_keys(files: Iterable[str | Path]) -> None:
    """Raise UserError for the first key that stands twice in one place of one of these files."""
    for file in files:
        loader = _Loader(Path(file).read_text(encoding="utf-8"))
        loader.name = str(file)
        try:
            loader.get_single_data()
        finally:
            loader.dispose()


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, which minds a key that it has seen."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Construct the mapping once its own keys are seen to differ (merged ones may be overridden)."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                line = key.start_mark.line + 1
                raise UserError(f"{self.name}, line {line}: the key {key.value!r} stands there twice; take one away")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)
