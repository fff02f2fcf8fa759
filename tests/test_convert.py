"""Models in the study's folder form: random ones, copied folders, and the manifest."""

import shutil

import pytest
import torch
from conftest import FAMILIES, PROMPTS, SIZES

from es2.convert import convert, copy_folder, make_random, write_manifest
from es2.errors import UserError
from es2.files import read_json, sha256_file
from es2.models import load_model


def hashes_hold(folder):
    listed = read_json(folder / "manifest.json")["files"]
    present = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert set(listed) == present
    assert all(sha256_file(folder / name) == value for name, value in listed.items())
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= present


@pytest.mark.parametrize("family", FAMILIES)
def test_random_models_answer_a_chat(tmp_path, family):
    make_random(family, {**SIZES, **FAMILIES[family]}, PROMPTS, 0, tmp_path)
    lm = load_model(tmp_path, device="cpu")
    assert lm.base.config.model_type == family
    tokens = lm.chat_tokens(PROMPTS[:1])[0]
    assert max(tokens) < lm.base.config.vocab_size
    text = "<|user|>\nBake bread<|end|>\n<|assistant|>\n"
    assert lm.tokenizer.decode(tokens) == text
    assert lm.tokenizer.eos_token == "<|end|>"
    assert tokens.count(lm.tokenizer.eos_token_id) == 1
    with torch.no_grad():
        assert torch.isfinite(lm.model(input_ids=torch.tensor([tokens])).logits).all()


def test_convert_random_is_a_function_of_its_seed(tmp_path):
    rows = {"a": 0, "b": 0, "c": 1}
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(PROMPTS))
    for name, seed in rows.items():
        row = {"format": "random", "architecture": "llama", "seed": seed, "settings": SIZES}
        convert("tiny", row, [texts], tmp_path / name)
        hashes_hold(tmp_path / name)
    weights = {name: sha256_file(tmp_path / name / "model.safetensors") for name in rows}
    assert weights["a"] == weights["b"] != weights["c"]
    manifest = read_json(tmp_path / "a" / "manifest.json")
    assert manifest["model"] == "tiny"
    assert manifest["format"] == "random"


def test_a_copied_folder_is_the_same_model(tiny_folders, tmp_path):
    convert("copy", {"format": "folder", "path": str(tiny_folders["qwen2"])}, [], tmp_path / "copy")
    hashes_hold(tmp_path / "copy")
    before, after = (load_model(folder, device="cpu") for folder in (tiny_folders["qwen2"], tmp_path / "copy"))
    tokens = torch.tensor(before.chat_tokens(PROMPTS[:1]))
    assert after.chat_tokens(PROMPTS) == before.chat_tokens(PROMPTS)
    with torch.no_grad():
        assert torch.equal(after.model(input_ids=tokens).logits, before.model(input_ids=tokens).logits)
    assert after.end_tokens() == before.end_tokens()
    assert after.template_sha256() == before.template_sha256()


def test_what_another_model_left_in_the_folder_is_not_this_models(tiny_folders, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folders["llama"], bare)
    (bare / "chat_template.jinja").unlink()
    copy_folder(tiny_folders["llama"], tmp_path / "out")
    assert (tmp_path / "out/chat_template.jinja").is_file()
    copy_folder(bare, tmp_path / "out")
    assert not (tmp_path / "out/chat_template.jinja").exists()
    with pytest.raises(UserError, match="has no chat template"):
        load_model(tmp_path / "out", device="cpu")


def test_a_changed_file_does_not_match_its_manifest(tiny_folders, tmp_path):
    shutil.copytree(tiny_folders["llama"], tmp_path / "m")
    write_manifest(tmp_path / "m", {"model": "m"})
    hashes_hold(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{}")
    with pytest.raises(AssertionError):
        hashes_hold(tmp_path / "m")


def test_wrong_sources_are_user_errors(tiny_folders, tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        copy_folder(tmp_path, tmp_path / "out")
    row = {"format": "random", "seed": 0, "settings": SIZES}
    with pytest.raises(UserError, match=r"models\.mine: .* random"):
        convert("mine", {**row, "architecture": "nonesuch"}, [], tmp_path / "out")
    shutil.copytree(tiny_folders["llama"], tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(UserError, match=r"models\.mine: .* folder"):
        convert("mine", {"format": "folder", "path": str(tmp_path / "broken")}, [], tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
