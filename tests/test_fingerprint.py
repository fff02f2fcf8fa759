"""The fingerprint of a script's code: what changes it, what does not, that it covers what is imported at run time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from es2.attacks import base as attacks_base
from es2.config import method_module
from es2.fingerprint import AROUND, UNSEEN, closure, fingerprint
from es2.registry import ATTACKS, JUDGES, METHODS

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
KINDS_OF = {
    "finetune": [method_module("es2")],
    "generate_answers": [ATTACKS["scav_adaptive"], JUDGES["keyword"]],
    "judge_answers": [JUDGES["keyword"]],
    "ask_judge": [JUDGES["rubric"], JUDGES["judgezoo"]],
    "record_reference": [JUDGES["keyword"]],
    "collect_settings": [JUDGES["keyword"]],
}


@pytest.fixture
def package(tmp_path):
    """A package es2 of a few modules, and a script that imports one of them."""
    root = tmp_path / "es2"
    files = {
        "es2/__init__.py": "",
        "es2/top.py": '"""Top."""\nfrom es2.middle import go\n\n\ndef run():\n    """Run."""\n    return go()\n',
        "es2/middle.py": "from es2 import bottom\n\n\ndef go():\n    return bottom.VALUE\n",
        "es2/bottom.py": "VALUE = 1  # one\n",
        "es2/aside.py": "VALUE = 1\n",
        "es2/late.py": "def go():\n    from es2.group.tool import use\n\n    return use()\n",
        "es2/group/__init__.py": "",
        "es2/group/tool.py": "def use():\n    return 1\n",
        "es2/group/task.yaml": "task: one\n",
        "es2/kinds/__init__.py": "",
        "es2/kinds/first.py": "import es2.bottom\n",
        "es2/kinds/second.py": "VALUE = 2\n",
        "es2/registry.py": "NAMES = {}\n",
        "script.py": "from es2.top import run\nfrom es2 import registry\n\nrun()\n",
        "late.py": "import es2.late\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def write(path: Path, text: str) -> None:
    """Write so that the time of change differs even on a coarse clock."""
    import os

    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def of(package: Path, script: str = "script.py", kinds: tuple[str, ...] = ()) -> str:
    return fingerprint(package.parent / script, kinds, package)


def test_the_closure_holds_what_is_imported_and_the_packages_around_it(package):
    assert closure(package.parent / "script.py", root=package) == ["es2", "es2.bottom", "es2.middle", "es2.top"]


def test_an_edit_two_imports_down_changes_it(package):
    before = of(package)
    write(package / "bottom.py", "VALUE = 2\n")
    assert of(package) != before


def test_an_edit_of_the_script_changes_it_and_its_comments_do_not(package):
    before = of(package)
    script = package.parent / "script.py"
    write(script, f'"""A script."""\n\n{script.read_text()}# done\n')
    assert of(package) == before
    write(script, script.read_text().replace("run()", "run(); run()"))
    assert of(package) != before


def test_comments_docstrings_and_lines_change_nothing(package):
    before = of(package)
    write(package / "bottom.py", '"""The bottom."""\n\n# why\nVALUE  =  1\n')
    write(package / "top.py", "from es2.middle import go\n\ndef run():\n    # run\n    return go()\n")
    assert of(package) == before


def test_a_text_that_is_no_docstring_counts(package):
    write(package / "bottom.py", "VALUE = 'a'\n")
    before = of(package)
    write(package / "bottom.py", "VALUE = 'b'\n")
    assert of(package) != before


def test_a_module_aside_and_the_table_of_names_change_nothing(package):
    before = of(package)
    write(package / "aside.py", "VALUE = 2\n")
    write(package / "registry.py", "NAMES = {'new': 'es2.kinds.new'}\n")
    assert of(package) == before


def test_what_stands_around_a_result_changes_nothing_and_what_it_imports_does(package):
    write(package / "scripting.py", "from es2.aside import VALUE\n")
    write(package / "top.py", "from es2.scripting import VALUE\n")
    before = of(package)
    assert closure(package.parent / "script.py", root=package) == ["es2", "es2.aside", "es2.top"]
    write(package / "scripting.py", "from es2.aside import VALUE\n\nVALUE += 1\n")
    assert of(package) == before
    write(package / "aside.py", "VALUE = 3\n")
    assert of(package) != before


def test_an_import_inside_a_function_and_a_task_file_count(package):
    before = of(package, "late.py")
    write(package / "group/tool.py", "def use():\n    return 2\n")
    after = of(package, "late.py")
    assert after != before
    write(package / "group/task.yaml", "task: two\n")
    assert of(package, "late.py") != after


def test_a_kind_adds_its_own_module_only(package):
    first, second = of(package, "late.py", ("es2.kinds.first:Class",)), of(package, "late.py", ("es2.kinds.second",))
    assert first != second
    write(package / "kinds/second.py", "VALUE = 3\n")
    assert of(package, "late.py", ("es2.kinds.first:Class",)) == first
    assert of(package, "late.py", ("es2.kinds.second",)) != second
    assert "es2.bottom" in closure(package.parent / "late.py", ("es2.kinds.first",), package)


def test_a_relative_import_is_refused_rather_than_missed(package):
    write(package / "top.py", "from .middle import go\n")
    with pytest.raises(ValueError, match="relative"):
        of(package)


LOADED = """
import ast, importlib, json, os, sys
import datasets, matplotlib.figure, pandas, peft, sklearn.linear_model
from transformers import AutoModelForCausalLM, AutoTokenizer
assert not [name for name in sys.modules if name.partition('.')[0] == 'es2']
for script, kinds in json.load(sys.stdin).items():
    if os.fork():
        assert os.wait()[1] == 0, script
        continue
    tree = ast.parse(open(script).read())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(tree, 'script', 'exec'))
    [importlib.import_module(kind.partition(':')[0]) for kind in kinds]
    print(json.dumps([script, [name for name in sys.modules if name.partition('.')[0] == 'es2']]), flush=True)
    os._exit(0)
"""
"""Each script in a process of its own, which has loaded what is not ours before: that takes seconds, and is no news."""


@pytest.fixture(scope="module")
def loaded():
    """{script: our modules that it has loaded once its imports, and its kinds', have run}."""
    asked = json.dumps({str(path): KINDS_OF.get(path.stem, []) for path in SCRIPTS})
    done = subprocess.run([sys.executable, "-c", LOADED], input=asked, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_covers_every_module_that_the_script_imports(script, loaded):
    """Compared with what is loaded when they run."""
    assert set(loaded[str(script)]) - UNSEEN - AROUND <= set(closure(script, KINDS_OF.get(script.stem, [])))


@pytest.mark.parametrize("module", [*METHODS.values(), *ATTACKS.values(), *JUDGES.values()])
def test_every_name_of_a_registry_is_a_module(module):
    name = module.partition(":")[0]
    assert (ROOT / Path(*name.split("."))).with_suffix(".py").is_file()


def test_extraction_knows_nothing_of_losses_and_one_attack_nothing_of_another():
    scripts = ROOT / "workflow/scripts"
    extraction = closure(scripts / "extract_embeddings.py")
    assert not [name for name in extraction if name.startswith(("es2.losses", "es2.methods", "es2.training"))]
    direct = closure(scripts / "generate_answers.py", [ATTACKS["direct"]])
    assert attacks_base.__name__ in direct
    assert ATTACKS["scav"] not in direct
    drawing = [path for path in SCRIPTS if "es2.plots.style" in closure(path)]
    assert {path.stem.partition("_")[0] for path in drawing} == {"plot"}
