"""The files and folders on this machine that a config names."""

from pathlib import Path

from es2.errors import UserError
from es2.registry import suggest
from es2.settings.data import BundledSource, FileSource, FolderModel, Source
from es2.settings.evaluation import OwnAttack
from es2.settings.lookup import used_bundles, used_models
from es2.settings.study import Config

BUNDLED = Path(__file__).parents[2] / "prompts" / "bundled"


def own_file(source: Source) -> Path | None:
    """The file of the package's or the user's that a source is a copy of, if it is one."""
    if isinstance(source, BundledSource):
        return BUNDLED / source.file
    return Path(source.path).expanduser() if isinstance(source, FileSource) else None


def check_paths(config: Config) -> None:
    """Raise for the first file or folder on this machine that the config names and that is not there."""
    for name, source in config.sources.items():
        file = own_file(source)
        if file is not None and not file.is_file():
            key, value = ("file", file.name) if isinstance(source, BundledSource) else ("path", str(file))
            known = sorted(path.name for path in BUNDLED.iterdir() if path.is_file())
            hint = suggest(value, known) if key == "file" else "correct the path"
            raise UserError(f"sources.{name}.{key}: there is no file {value}; {hint}")
    for bundle in used_bundles(config):
        attack = config.attacks[config.bundles[bundle].attack]
        if isinstance(attack, OwnAttack) and not Path(attack.path).is_file():
            where = f"attacks.{config.bundles[bundle].attack}.path"
            raise UserError(f"{where}: there is no file {attack.path}; correct the path")
    for name in used_models(config):
        model = config.models[name]
        if isinstance(model, FolderModel) and not Path(model.path).expanduser().is_dir():
            raise UserError(f"models.{name}.path: there is no folder {model.path}; correct the path")
