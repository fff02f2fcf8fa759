"""The code reads and writes nothing that could run code of others, and takes nothing from the network unpinned."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from configs import DELETE, ROOT, changed, load

from es2.config import read_study
from es2.errors import UserError

CODE = sorted([*(ROOT / "es2").rglob("*.py"), *(ROOT / "workflow/scripts").glob("*.py")])
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    *("torch.load", "torch.save", "np.load", "np.save", "numpy.load", "numpy.save", "pd.read_pickle", "eval", "exec"),
    *("os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "shutil.unpack_archive"),
}
METHODS = {"extractall", "extract", "to_pickle", "load_pickle"}
OFF = {"trust_remote_code", "allow_pickle", "shell"}
LOADERS = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}


def unsafe(text: str) -> Iterator[str]:
    """What in a Python text could run code that is in a file, as `line: what`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            wrong = [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            wrong = [str(node.module)] if str(node.module).partition(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            wrong = list(_of_call(node))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
            wrong = [node.attr] if node.attr in LOADERS else []
        elif isinstance(node, ast.Dict):
            wrong = [key.value for key, value in _texts(node) if key.value in OFF and not _false(value)]
        else:
            wrong = []
        yield from (f"{getattr(node, 'lineno', 0)}: {name}" for name in wrong)


def _of_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    if name in CALLS or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
        yield name
    yield from (str(word.arg) for word in node.keywords if word.arg in OFF and not _false(word.value))


def _texts(node: ast.Dict) -> Iterator[tuple[ast.Constant, ast.expr]]:
    yield from (
        (key, value) for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)
    )


def _false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize("path", CODE, ids=[str(path.relative_to(ROOT)) for path in CODE])
def test_no_module_and_no_script_can_run_what_a_file_holds(path):
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", RULES, ids=[path.name for path in RULES])
def test_no_rule_runs_a_shell_or_a_pickle(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(shell|run|wrapper|notebook):|\bshell\(|pickle|trust_remote_code", text, re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.save({}, path)",
        "np.load(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "pd.read_pickle(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=flag)",
        "options = {'trust_remote_code': True}",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "exec(text)",
        "subprocess.run(command, shell=True)",
    ],
)
def test_what_could_run_code_is_seen(text):
    assert list(unsafe(text))


def test_what_is_safe_is_let_through():
    text = "model.eval()\nyaml.safe_load(a)\nload(a, trust_remote_code=False)\nx = {'trust_remote_code': False}\n"
    assert list(unsafe(text)) == []


def test_models_of_others_are_read_as_safetensors_alone():
    """Every model that is loaded from outside of the study says so; the study's own folders hold nothing else."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "es2/convert.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "AutoModelForCausalLM.from_pretrained"
    ]
    said = [ast.unparse(call) for call in calls]
    assert said
    assert all("use_safetensors=True" in call or "**source" in call for call in said)


CONFIGS = [
    ["config.yaml", path.name] for path in sorted((ROOT / "config").glob("*.yaml")) if path.name != "config.yaml"
]
PINS = {
    "wheel": ("sha256", "requirement"),
    "wheel_parts": ("sha256", "requirement"),
    "hub": ("revision",),
    "github": ("revision",),
}


@pytest.mark.parametrize("names", CONFIGS, ids=[names[-1] for names in CONFIGS])
def test_every_source_and_model_of_every_config_is_pinned(names):
    """And would be refused without its pin, or with one that may move."""
    config = load(*names)
    pinned = [(f"sources/{name}", PINS.get(row["kind"], ())) for name, row in config["sources"].items()]
    pinned += [(f"models/{name}", PINS.get(row["format"], ())) for name, row in config["models"].items()]
    places = [f"{place}/{pin}" for place, pins in pinned for pin in pins]
    assert places
    assert read_study(config)
    for place in places:
        for value in (DELETE, "main"):
            with pytest.raises(UserError, match=place.replace("/", r"\.")):
                read_study(changed(config, place, value))


def test_archives_are_read_by_named_member():
    text = (ROOT / "es2/prompts/sources.py").read_text(encoding="utf-8")
    assert "archive.open(member)" in text
    assert [str(path) for path in CODE if "zipfile" in path.read_text() or "tarfile" in path.read_text()] == [
        str(ROOT / "es2/prompts/sources.py")
    ]


def test_no_script_reads_the_whole_config():
    """What a job knows of the config are its params, so that an edit of it is seen."""
    assert not [path.name for path in CODE if ".config[" in path.read_text() and Path(path).parent.name == "scripts"]
