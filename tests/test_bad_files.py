"""Files of the user's that are not what the config says: one sentence each, before any job where it can be known."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from configs import ROOT, changed, load
from huggingface_hub import errors as hub_errors

from es2 import convert as converting
from es2.config import check_files, check_keys, read_study
from es2.convert import convert
from es2.errors import UserError
from es2.prompts.readers import read_prompts
from es2.prompts.sources import fetch

HUB = {"format": "hub", "repo": "owner/model", "revision": "a" * 40}
FOLDER = {"format": "folder", "system_prompt": "template", "dtype": "float32"}


@pytest.fixture(scope="module")
def default():
    return load("config.yaml")


def said_of(call, *arguments) -> str:
    """The one sentence that a call ends in."""
    with pytest.raises(UserError) as raised:
        call(*arguments)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


def folder(path: Path) -> None:
    path.mkdir()


def unreadable(path: Path) -> None:
    path.write_text("prompt\nx\n")
    path.chmod(0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "sources.mine.path: there is no file {path}; correct the path"),
        (folder, "sources.mine.path: {path} is a folder; give the path of a file"),
        (Path.touch, "sources.mine.path: {path} is empty; give a file that holds something"),
        (unreadable, "sources.mine.path: {path} may not be read by you; change its permissions"),
    ],
    ids=["missing", "folder", "empty", "unreadable"],
)
def test_a_source_of_the_users_before_any_job(default, tmp_path, monkeypatch, make, said):
    path = tmp_path / "mine.csv"
    make(path)
    # The administrator may read everything, so that the permission is asked of a stand-in.
    monkeypatch.setattr(os, "access", lambda file, mode: bool(os.stat(file).st_mode & 0o400))
    study = read_study(changed(default, "sources/mine", {"kind": "file", "path": str(path)}))
    assert said_of(check_files, study) == said.format(path=path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def fit(x:\n", "attacks.mine.path: {path} is no Python at line 1 ('(' was never closed); mend it"),
        ("def fits(x): pass\n", "attacks.mine.path: {path} has no function fit(evaluation, settings); add it"),
        ("", "attacks.mine.path: {path} is empty; give a file that holds something"),
    ],
    ids=["no Python", "no fit", "empty"],
)
def test_an_attack_of_the_users_before_any_job(default, tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    config = changed(default, "attacks/mine", {"kind": "file", "path": str(path), "settings": {}})
    row = {"attack": "mine", "fitted_on": ["self"], "benchmarks": {"advbench": 4}, "runs": "trained"}
    study = read_study(changed(changed(config, "bundles/mine", row), "select/bundles", ["direct", "mine"]))
    assert said_of(check_files, study) == said.format(path=path)


@pytest.mark.parametrize("text", ["def fit(e, s): ...\n", "from other import fit\n", "fit = make()\n"])
def test_a_fit_may_be_made_in_any_way(default, tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    config = changed(default, "attacks/mine", {"kind": "file", "path": str(tmp_path / "mine.py"), "settings": {}})
    row = {"attack": "mine", "fitted_on": ["self"], "benchmarks": {"advbench": 4}, "runs": "trained"}
    study = read_study(changed(changed(config, "bundles/mine", row), "select/bundles", ["direct", "mine"]))
    assert check_files(study) is None


def test_an_attack_of_the_users_is_fitted_on_the_run_itself(default, tmp_path):
    (tmp_path / "mine.py").write_text("def fit(e, s): ...\n")
    config = changed(default, "attacks/mine", {"kind": "file", "path": str(tmp_path / "mine.py"), "settings": {}})
    row = {"attack": "mine", "fitted_on": ["base"], "benchmarks": {"advbench": 4}, "runs": "trained"}
    config = changed(changed(config, "bundles/mine", row), "select/bundles", ["direct", "scav_adaptive", "mine"])
    said = "bundles.mine.fitted_on: what an attack file fits, it fits on the run itself; add self"
    assert said_of(read_study, config) == said
    assert read_study(changed(config, "bundles/mine/fitted_on", ["base", "self"])).fitted_on("mine", "es2")


def without(*names: str):
    return lambda model: [(model / name).unlink() for name in names]


def settings(text: str):
    return lambda model: (model / "config.json").write_text(text)


CODE = json.dumps({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling.Mine"}})
MODELS = [
    (lambda model: shutil.rmtree(model), "there is no folder {path}; correct the path"),
    (without("config.json"), "there is no config.json in {path}; give the folder of a Hugging Face model"),
    (settings("{"), "{path}/config.json cannot be read as JSON"),
    (settings("{}"), "{path}/config.json names no model_type; give the folder of a Hugging Face model"),
    (settings(CODE), "the model in {path} needs code that comes with it, and none is run; take another"),
    (
        without("model.safetensors"),
        "{path} holds no safetensors, and no other weights are read; save it in that form",
    ),
    (without("tokenizer.json", "tokenizer_config.json"), "{path} holds no tokenizer; save the model's own beside it"),
]


@pytest.mark.parametrize(("spoil", "said"), MODELS)
def test_a_model_of_the_users_before_any_job(default, tiny_folders, tmp_path, spoil, said):
    path = tmp_path / "model"
    shutil.copytree(tiny_folders["llama"], path)
    config = changed(changed(default, "models/mine", {**FOLDER, "path": str(path)}), "select/models", ["mine"])
    assert check_files(read_study(config)) is None
    spoil(path)
    assert said_of(check_files, read_study(config)).startswith("models.mine.path: " + said.format(path=path))


def test_a_file_where_a_models_folder_should_stand(default, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    config = changed(changed(default, "models/mine", {**FOLDER, "path": str(path)}), "select/models", ["mine"])
    sentence = said_of(check_files, read_study(config))
    assert sentence == f"models.mine.path: {path} is a file; give the folder of a model, or a GGUF file as a source"


def test_a_key_that_stands_twice_is_said_with_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("runs:\n  mine: {method: base}\n  other: {method: base}\n  mine: {method: hold}\n")
    assert said_of(check_keys, [path]) == f"{path}, line 4: the key 'mine' stands there twice; take one away"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\nc: {x: 1}\n")
    assert check_keys([path, *(ROOT / "config").rglob("*.yaml")]) is None


CSV = {"format": "csv"}


@pytest.mark.parametrize(
    ("name", "content", "row", "said"),
    [
        ("a.csv", b"prompt\nna\xefve\n", {}, "sources.mine: a.csv cannot be read as csv: 'utf-8' codec can't decode"),
        ("a.jsonl", b'{"prompt": "na\xefve"}', {}, "sources.mine: a.jsonl cannot be read as jsonl: 'utf-8' codec"),
        (
            "a.csv",
            b"prompt,kind\n,x\nb,y\n",
            {},
            "sources.mine: 1 of 2 rows have no text in column 'prompt', the first is row 1: mend or remove them, or "
            "name another prompt_column.",
        ),
        ("a.jsonl", b'{"prompt": NaN}', {}, "sources.mine: 1 of 1 rows have no text in column 'prompt'"),
        ("a.jsonl", b'{"prompt": 7}', {}, "sources.mine: 1 of 1 rows have no text in column 'prompt'"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\x00", {}, "sources.mine: a.csv cannot be read as csv"),
        ("a.parquet", b"PAR1" + bytes(40), {}, "sources.mine: a.parquet cannot be read as parquet"),
        ("a.csv", b'prompt\n"open\n', {}, "sources.mine: a.csv cannot be read as csv"),
        (
            "a.csv",
            b"goal\nx\n",
            {},
            "sources.mine.prompt_column: there is no column 'prompt'; the file has goal.",
        ),
        (
            "a.jsonl",
            b"[1, 2]",
            {},
            "sources.mine: a.jsonl is not a list of rows with named columns: if the list stands under a key, name it "
            "in `records`.",
        ),
    ],
)
def test_a_table_of_prompts_that_cannot_be_read(tmp_path, name, content, row, said):
    (tmp_path / name).write_bytes(content)
    assert said_of(read_prompts, tmp_path / name, row, "mine").startswith(said)


def test_a_file_with_another_hash(tmp_path):
    (tmp_path / "a.csv").write_text("prompt\nx\n")
    row = {"kind": "file", "path": str(tmp_path / "a.csv"), "sha256": "0" * 64}
    sentence = said_of(fetch, "mine", row, tmp_path / "out" / "mine.csv")
    assert re.fullmatch(r"sources\.mine\.sha256: the file begins [0-9a-f]{12} and the config says 0{12}: .*", sentence)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + bytes(8), b"PK\x03\x04 no model"])
def test_a_gguf_file_that_is_cut_short_or_none(tmp_path, content):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    sentence = said_of(convert, "mine", {"format": "gguf"}, [file], tmp_path / "out")
    assert sentence.startswith("models.mine: it could not be read as gguf (")
    assert sentence.endswith("); check its source")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_gguf_file_cut_in_its_weights(tmp_path):
    import numpy as np
    from gguf import GGUFWriter

    whole = tmp_path / "whole.gguf"
    writer = GGUFWriter(whole, "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((64, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = whole.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: len(content) // 2])
    sentence = said_of(convert, "mine", {"format": "gguf"}, [tmp_path / "cut.gguf"], tmp_path / "out")
    assert sentence.startswith("models.mine: it could not be read as gguf (")


@pytest.mark.parametrize("config", ['{"model_type": "nonesuch"}', '{"model_type": "vit"}'])
def test_an_architecture_that_is_unknown_or_no_language_model(tiny_folders, tmp_path, config):
    shutil.copytree(tiny_folders["llama"], tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(config)
    row = {"format": "folder", "path": str(tmp_path / "model")}
    sentence = said_of(convert, "mine", row, [], tmp_path / "out")
    assert sentence.startswith("models.mine: it could not be read as folder (")


def test_weights_that_are_no_safetensors_are_never_read(tiny_folders, tmp_path, monkeypatch):
    import torch

    shutil.copytree(tiny_folders["llama"], tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"no weights")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was asked"))
    row = {"format": "folder", "path": str(tmp_path / "model")}
    assert said_of(convert, "mine", row, [], tmp_path / "out").startswith("models.mine: it could not be read")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            hub_errors.GatedRepoError,
            "models.mine.repo: owner/model is gated: accept its terms on the hub and set HF_TOKEN.",
        ),
        (
            hub_errors.RepositoryNotFoundError,
            "models.mine.repo: the hub has no owner/model, or it is private: check repo and repo_type.",
        ),
        (
            hub_errors.RevisionNotFoundError,
            "models.mine.revision: owner/model has no commit aaaaaaaaaaaa: check it on the hub.",
        ),
        (
            hub_errors.LocalEntryNotFoundError,
            "models.mine: owner/model is not cached and the hub does not answer: check the network.",
        ),
        (
            ConnectionError,
            "models.mine: owner/model cannot be had from the hub: ConnectionError: run again, or check repo and "
            "revision.",
        ),
    ],
)
def test_a_model_that_the_hub_does_not_give(monkeypatch, tmp_path, kind, said):
    def download(**_):
        raise kind.__new__(kind)

    monkeypatch.setattr(converting, "snapshot_download", download)
    assert said_of(convert, "mine", HUB, [], tmp_path / "out") == said


def test_a_full_disk_is_not_taken_for_a_bad_model(monkeypatch, tmp_path):
    def download(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(converting, "snapshot_download", download)
    with pytest.raises(OSError, match="No space left"):
        convert("mine", HUB, [], tmp_path / "out")
