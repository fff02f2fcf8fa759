"""What stands around a result (es2.fingerprint.AROUND) and is left out of fingerprints cannot change one.

That is: it imports nothing that computes, draws no random number, and code that counts takes from it only what opens a
`with`, which gives it nothing but a way to report progress.
"""

import ast
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from jobs import run, stand_in

from es2.fingerprint import AROUND, closure

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
FILES = {module: ROOT.joinpath(*module.split(".")).with_suffix(".py") for module in AROUND}
COUNTING = [*SCRIPTS, *(path for path in sorted((ROOT / "es2").rglob("*.py")) if path not in FILES.values())]
HELPERS = {"es2.errors", "es2.files", "es2.threads"}
OPENERS = {("es2.scripting", "job"), ("es2.progress", "progress"), ("es2.lock", "locked")}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[tuple[str, str]]:
    """(module, name) of a file's imports, with an empty name for a module as a whole."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            found |= {(str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return found


@pytest.mark.parametrize("module", sorted(AROUND))
def test_it_imports_nothing_that_computes(module):
    named = {name for name, _ in imported(FILES[module])}
    own = {name for name in named if name.partition(".")[0] == "es2"}
    assert own <= HELPERS | AROUND
    assert {name.partition(".")[0] for name in named - own} <= {*sys.stdlib_module_names, "tqdm"} - {"random"}


def test_what_it_uses_of_the_package_counts():
    assert not HELPERS & AROUND
    for script in SCRIPTS:
        assert set(closure(script)) >= HELPERS
        assert not set(closure(script)) & AROUND


@pytest.mark.parametrize("path", COUNTING, ids=lambda path: path.stem)
def test_code_that_counts_takes_from_it_only_what_opens_a_with(path):
    taken = {(module, name) for module, name in imported(path) if module in AROUND or f"{module}.{name}" in AROUND}
    assert taken <= OPENERS
    openers, nodes = {name for _, name in taken}, list(ast.walk(tree(path)))
    opened = {
        id(item.context_expr.func)
        for node in nodes
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
    }
    used = [node for node in nodes if isinstance(node, ast.Name) and node.id in openers]
    assert all(id(node) in opened for node in used)
    assert bool(used) == bool(openers)


@pytest.mark.parametrize(("module", "name"), sorted(OPENERS))
def test_what_a_with_gives_is_nothing_or_a_function_that_returns_nothing(module, name):
    given = get_type_hints(getattr(importlib.import_module(module), name))["return"]
    assert get_origin(given) is Iterator
    (inner,) = get_args(given)
    if inner is not None:
        assert get_origin(inner) is Callable
        assert get_args(inner)[1] is None


def test_a_script_runs_whole_inside_its_job():
    for script in SCRIPTS:
        statements = [node for node in tree(script).body if isinstance(node, ast.With)]
        assert len(statements) == 1, script.name
        assert {item.optional_vars for item in statements[0].items} == {None}, script.name


def drawn() -> tuple[Any, ...]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_random_numbers_are_the_same_inside_and_after_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found: list[tuple[Any, ...]] = []
    for inside in (False, True):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

        def body() -> None:
            found.append(drawn())
            Path("table.csv").write_text("")

        if inside:
            run(stand_in("collect", [], ["table.csv"]), body)
        else:
            body()
        found.append(drawn())
    assert found[:2] == found[2:]
    assert found[0] != found[1]
