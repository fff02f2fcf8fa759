"""A defence that others trained: an adapter, or a whole model."""

import json
import shutil

import pytest
import torch
from conftest import PROMPTS
from safetensors.torch import load_file, save_file

from es2.errors import UserError
from es2.external import bring_adapter
from es2.merge import merge
from es2.models import load_model, load_run
from es2.training import add_lora, save_adapter
from es2.vllm_answers import _room


@pytest.fixture
def adapter(load_model, tmp_path):
    """A LoRA adapter of the tiny Llama with weights that do something."""
    lm = load_model()
    add_lora(lm, {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": "all-linear"}, 0)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_adapter(lm, tmp_path / "theirs", "somebody/else")
    return tmp_path / "theirs", lm


def bring(folder, model, out):
    bring_adapter("mine", folder / "adapter_config.json", folder / "adapter_model.safetensors", model, out)


def test_a_brought_adapter_is_the_one_that_was_given(adapter, tiny_folders, tmp_path):
    theirs, lm = adapter
    bring(theirs, tiny_folders["llama"], tmp_path / "run" / "adapter")
    mine = load_model(tiny_folders["llama"], tmp_path / "run" / "adapter", device="cpu")
    tokens = torch.tensor(lm.chat_tokens(PROMPTS[:1]))
    with torch.no_grad():
        torch.testing.assert_close(mine.model(input_ids=tokens).logits, lm.model(input_ids=tokens).logits)
    written = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == tiny_folders["llama"].name


def test_an_adapter_of_another_model_is_a_user_error(adapter, tiny_folders, make_tiny, tmp_path):
    theirs, _ = adapter
    with pytest.raises(UserError, match=r"runs\.mine\.adapter: it does not fit"):
        bring(theirs, make_tiny("llama", tmp_path / "wide", hidden_size=48), tmp_path / "out")
    with pytest.raises(UserError, match="weights stand on one side alone"):
        bring(theirs, make_tiny("llama", tmp_path / "deep", num_hidden_layers=5), tmp_path / "out2")


def test_what_is_no_adapter_is_a_user_error(adapter, tiny_folders, tmp_path):
    theirs, _ = adapter
    model = tiny_folders["llama"]

    def spoiled(config=None, weights=None):
        folder = tmp_path / f"spoiled{len(list(tmp_path.iterdir()))}"
        shutil.copytree(theirs, folder)
        if config is not None:
            (folder / "adapter_config.json").write_text(config)
        if weights is not None:
            weights(folder / "adapter_model.safetensors")
        return folder

    cases = [
        (spoiled(config="{}"), "is of neither peft nor transformers"),
        (spoiled(config="not json"), "is no JSON file"),
        (spoiled(config='{"peft_type": "IA3"}'), "is of type IA3"),
        (spoiled(weights=lambda path: path.write_bytes(b"pickle")), "no safetensors file"),
        (spoiled(weights=lambda path: save_file({"a": torch.ones(1)}, path)), "holds no LoRA weights"),
    ]
    for folder, said in cases:
        with pytest.raises(UserError, match=said):
            bring(folder, model, tmp_path / "out")
    assert load_file(theirs / "adapter_model.safetensors")


CFG = {"dtype": "float32", "system_prompt": "template"}


@pytest.fixture(params=["llama", "qwen2"])
def whole(request, load_model, tiny_folders, tmp_path):
    """All weights of a tiny model changed, saved as transformers does, the model itself, and its base's folder."""
    lm = load_model(request.param)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    lm.model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", lm, tiny_folders[request.param]


def bring_whole(folder, model, out):
    bring_adapter("mine", folder / "config.json", folder / "model.safetensors", model, out)


def test_a_whole_model_takes_the_place_of_the_base_and_is_merged_as_it_is(whole, tmp_path):
    theirs, lm, base = whole
    bring_whole(theirs, base, tmp_path / "run" / "adapter")
    manifest, files = base / "manifest.json", [str(tmp_path / "run" / "adapter" / "adapter_config.json")]
    merge(base, tmp_path / "run" / "adapter", tmp_path / "merged")
    tokens = torch.tensor(lm.chat_tokens(PROMPTS[:1]))
    with torch.no_grad():
        wanted = lm.model(input_ids=tokens).logits
        for mine in (load_run(manifest, files, CFG, device="cpu"), load_model(tmp_path / "merged", device="cpu")):
            torch.testing.assert_close(mine.model(input_ids=tokens).logits, wanted)
        shipped = load_run(manifest, [], CFG, device="cpu")
        assert (shipped.model(input_ids=tokens).logits - wanted).abs().max() > 0.01


def test_a_whole_model_that_does_not_fit_is_a_user_error(whole, make_tiny, tmp_path):
    theirs, lm, base = whole
    family = lm.model.config.model_type
    for name, settings in (("wide", {"hidden_size": 48}), ("deep", {"num_hidden_layers": 5})):
        with pytest.raises(UserError, match=r"runs\.mine\.adapter\.weights: it does not fit"):
            bring_whole(theirs, make_tiny(family, tmp_path / name, **settings), tmp_path / "out")
    weights = load_file(theirs / "model.safetensors")
    for missing in ("model.norm.weight", "model.embed_tokens.weight"):
        part = {name: tensor for name, tensor in weights.items() if name not in (missing, "lm_head.weight")}
        save_file(part, tmp_path / "part.safetensors")
        with pytest.raises(UserError, match="it does not fit"):
            bring_adapter("mine", theirs / "config.json", tmp_path / "part.safetensors", base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_on_a_whole_model_nothing_is_trained_and_vllm_does_not_read_it(whole, tmp_path):
    theirs, _, base = whole
    bring_whole(theirs, base, tmp_path / "adapter")
    with pytest.raises(UserError, match="make it a row of `models`"):
        load_run(base / "manifest.json", [str(tmp_path / "adapter" / "adapter_config.json")], CFG, merge=False)
    with pytest.raises(UserError, match="write transformers"):
        _room(tmp_path / "adapter")
