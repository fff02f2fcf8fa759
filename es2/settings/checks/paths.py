"""The files and folders on this machine that a config names."""

import ast
import json
import os
from pathlib import Path

from es2.errors import UserError
from es2.registry import suggest
from es2.settings.data import BundledSource, FileSource, FolderModel, Model, Source
from es2.settings.evaluation import OwnAttack
from es2.settings.lookup import used_bundles, used_models
from es2.settings.study import Config

BUNDLED = Path(__file__).parents[2] / "prompts" / "bundled"
MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""What is read of a model's folder."""


def own_file(source: Source) -> Path | None:
    """The file of the package's or the user's that a source is a copy of, if it is one."""
    if isinstance(source, BundledSource):
        return BUNDLED / source.file
    return Path(source.path).expanduser() if isinstance(source, FileSource) else None


def own_model_files(model: Model) -> list[Path]:
    """The files of the user's folder that a model is a copy of, if it is one."""
    if not isinstance(model, FolderModel):
        return []
    folder = Path(model.path).expanduser()
    return sorted(path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file())


def check_paths(config: Config) -> None:
    """Raise for the first file or folder on this machine that the config names and that is not as it must be."""
    for name, source in config.sources.items():
        if isinstance(source, BundledSource):
            _check_bundled(f"sources.{name}.file", source.file)
        elif isinstance(source, FileSource):
            _check_file(f"sources.{name}.path", Path(source.path).expanduser())
    for bundle in used_bundles(config):
        attack = config.attacks[config.bundles[bundle].attack]
        if isinstance(attack, OwnAttack):
            _check_attack(f"attacks.{config.bundles[bundle].attack}.path", Path(attack.path))
    for name in used_models(config):
        model = config.models[name]
        if isinstance(model, FolderModel):
            _check_model(f"models.{name}.path", Path(model.path).expanduser())


def _check_bundled(where: str, file: str) -> None:
    known = sorted(path.name for path in BUNDLED.iterdir() if path.is_file())
    if file not in known:
        raise UserError(f"{where}: there is no file {file}; {suggest(file, known)}")


def _check_file(where: str, file: Path) -> None:
    """A file that is there, can be read, and holds something."""
    if file.is_dir():
        raise UserError(f"{where}: {file} is a folder; give the path of a file")
    if not file.is_file():
        raise UserError(f"{where}: there is no file {file}; correct the path")
    if not os.access(file, os.R_OK):
        raise UserError(f"{where}: {file} may not be read by you; change its permissions")
    if file.stat().st_size == 0:
        raise UserError(f"{where}: {file} is empty; give a file that holds something")


def _check_attack(where: str, file: Path) -> None:
    """Python with a `fit`: else it would be noticed hours later, when the models are trained."""
    _check_file(where, file)
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(
            f"{where}: {file} is no Python at line {line} ({getattr(error, 'msg', error)}); mend it"
        ) from None
    if not any("fit" in _bound(node) for node in tree.body):
        raise UserError(f"{where}: {file} has no function fit(evaluation, settings); add it")


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement binds, of those that may make a function."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom | ast.Import):
        return [alias.asname or alias.name for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _check_model(where: str, folder: Path) -> None:
    """A folder that transformers can read without running code: settings, safetensors, tokenizer, chat template."""
    if folder.is_file():
        raise UserError(f"{where}: {folder} is a file; give the folder of a model, or a GGUF file as a source")
    if not folder.is_dir():
        raise UserError(f"{where}: there is no folder {folder}; correct the path")
    settings = _read_settings(where, folder / "config.json")
    if "auto_map" in settings:
        raise UserError(f"{where}: the model in {folder} needs code that comes with it, and none is run; take another")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{where}: {folder} holds no safetensors, and no other weights are read; save it in that form")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        raise UserError(f"{where}: {folder} holds no tokenizer; save the model's own beside it")


def _read_settings(where: str, file: Path) -> dict[str, object]:
    if not file.is_file():
        raise UserError(f"{where}: there is no config.json in {file.parent}; give the folder of a Hugging Face model")
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {file} cannot be read as JSON ({error}); save the model again") from None
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise UserError(f"{where}: {file} names no model_type; give the folder of a Hugging Face model")
    return settings
