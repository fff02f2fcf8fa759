"""A fingerprint of the code that a script runs: its own, and that of the modules of this package that it imports,
directly or not.

Snakemake would judge a script by its time, which a checkout changes, and a module behind it not at all: the profile
switches that trigger off. Each rule takes this fingerprint as a parameter instead. It is made of syntax trees without
docstrings, so that comments and docstrings rerun nothing; imports inside functions count; modules that a config name
means are given as `kinds`. Torch-free.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "es2"
ROOT = Path(__file__).parent
UNSEEN = frozenset({f"{PACKAGE}.registry"})
"""The table of names: a job's own entry is given as a kind, and a new entry must rerun nothing."""
AROUND = frozenset(f"{PACKAGE}.{name}" for name in ("lock", "makers", "progress", "provenance", "records", "scripting"))
"""What stands around a result and cannot change it: progress bars, logs, locks, records of what was done. Their own
code does not count, so that an edit of it reruns nothing; what they import does. tests/test_around.py holds them to it:
they compute nothing, and code that counts takes from them only what opens a `with`. What could change a result lies
elsewhere, as the number of threads does."""


def fingerprint(script: Path, kinds: Iterable[str] = (), root: Path = ROOT) -> str:
    """SHA-256 over the code of `script` and in the import closure of it and of the modules `kinds`.

    A kind is a dotted name, with an attribute after a colon or without. `root` is the folder of the package.
    """
    digest = hashlib.sha256(_code(script, script.stat().st_mtime_ns).encode())
    for module in closure(script, kinds, root):
        digest.update(f"{module}\n{_code(_file(module, root), _stamp(module, root))}\n".encode())
        for file in _declared(module, root):
            digest.update(file.read_bytes())
    digest.update("\n".join(sorted(kinds)).encode())
    return digest.hexdigest()


def closure(script: Path, kinds: Iterable[str] = (), root: Path = ROOT) -> list[str]:
    """Modules of the package that `script` imports and what these import, with the packages that hold them, sorted.

    Without those that cannot change a result.
    """
    waiting = [*_imports(script, root), *(kind.partition(":")[0] for kind in kinds)]
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in found or module in UNSEEN:
            continue
        found.add(module)
        waiting += [module.rpartition(".")[0]] if "." in module else []
        waiting += _imports(_file(module, root), root)
    return sorted(found - AROUND)


def _imports(file: Path, root: Path) -> list[str]:
    """Modules of the package that a file names in its import statements."""
    return [name for name in _named(file, file.stat().st_mtime_ns) if _exists(name, root)]


@cache
def _named(file: Path, _stamp: int) -> tuple[str, ...]:
    """Everything of the package that a file's imports may mean: of `from a import b` both a and a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}: relative imports are not followed; write the whole name")
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.partition(".")[0] == PACKAGE)


@cache
def _code(file: Path, _stamp: int) -> str:
    """The file's syntax tree without docstrings, comments and line numbers, as text."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in _blocks(tree):
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _blocks(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _file(module: str, root: Path) -> Path:
    """The file of a module or package."""
    path = root.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _declared(module: str, root: Path) -> list[Path]:
    """The YAML files that stand beside a package's modules and are code as they are (tasks of a harness)."""
    file = _file(module, root)
    return sorted(file.parent.glob("*.yaml")) if file.name == "__init__.py" else []


def _stamp(module: str, root: Path) -> int:
    return _file(module, root).stat().st_mtime_ns


def _exists(module: str, root: Path) -> bool:
    return _file(module, root).is_file()
