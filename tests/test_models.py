"""Loading models, finding their parts, chat tokens, and logits from final states."""

import json
import shutil

import pytest
import torch
from conftest import FAMILIES, PROMPTS
from oracles import add_random_lora
from torch import nn

from es2.errors import UserError
from es2.models import LanguageModel, find_blocks, load_model


def is_one_sentence(error: pytest.ExceptionInfo) -> bool:
    message = str(error.value)
    return isinstance(error.value, UserError) and 20 < len(message) < 400 and "\n" not in message


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_a_model(load_model, family):
    lm = load_model(family)
    assert lm.n_layers == (4 if family == "llama" else 3)
    assert lm.width == 32
    assert lm.tokenizer.eos_token_id in lm.end_tokens()
    assert not lm.model.training
    wrapped = add_random_lora(lm)
    assert wrapped.n_layers == (4 if family == "llama" else 3)
    assert wrapped.base is not wrapped.model
    assert wrapped.blocks[0] is wrapped.decoder.layers[0]


SCALED = {
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 3.0},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 3.0},
}


@pytest.mark.parametrize("family", [*FAMILIES, *SCALED])
def test_logits_of_final_states_are_the_models_logits(tiny_folders, make_tiny, tmp_path, family):
    folder = make_tiny(family, tmp_path, **SCALED[family]) if family in SCALED else tiny_folders[family]
    lm = load_model(folder, device="cpu")
    tokens = torch.tensor(lm.chat_tokens(PROMPTS[1:2]))
    with torch.no_grad():
        states = lm.decoder(input_ids=tokens).last_hidden_state
        torch.testing.assert_close(lm.logits(states), lm.model(input_ids=tokens).logits, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_pieces_of_the_vocabulary_give_the_heads_logits(load_model, monkeypatch, bias):
    lm = load_model()
    head = lm.base.get_output_embeddings()
    if bias:
        head.bias = torch.nn.Parameter(torch.randn(len(head.weight)))
    monkeypatch.setattr("es2.models.HEAD_PIECE", 9)
    states = torch.randn(2, 3, lm.width)
    with torch.no_grad():
        assert len(head.weight) % 9
        torch.testing.assert_close(lm.logits(states), head(states), atol=1e-6, rtol=1e-6)
    assert lm.logits(states.requires_grad_()).requires_grad


@pytest.mark.parametrize("system_prompt", ["template", "none", "Answer in French."])
def test_chat_tokens_are_the_templates(load_model, system_prompt):
    lm = load_model(system_prompt=system_prompt)
    for prompt, tokens in zip(PROMPTS, lm.chat_tokens(PROMPTS), strict=True):
        messages = [{"role": "user", "content": prompt}]
        if system_prompt != "template":
            text = "" if system_prompt == "none" else system_prompt
            messages = [{"role": "system", "content": text}, *messages]
        expected = lm.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        assert tokens == expected["input_ids"]
    assert lm.chat_tokens([]) == []


def test_system_prompts_differ_in_tokens_and_hash(load_model):
    models = [load_model(system_prompt=text) for text in ("template", "none", "Answer in French.")]
    assert len({str(lm.chat_tokens(["Hi"])) for lm in models}) == 3
    assert len({lm.template_sha256() for lm in models}) == 3
    assert models[0].template_sha256() == load_model("gemma").template_sha256()


def test_a_template_without_system_prompts_says_so(load_model):
    lm = load_model(system_prompt="Answer in French.")
    lm.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(UserError, match="system_prompt") as error:
        lm.chat_tokens(["Hi"])
    assert is_one_sentence(error)


def test_end_tokens_come_from_tokenizer_and_generation_config(load_model):
    lm = load_model()
    lm.model.generation_config.eos_token_id = [7, 9]
    assert lm.end_tokens() == {7, 9, lm.tokenizer.eos_token_id}
    lm.model.generation_config.eos_token_id = None
    assert lm.end_tokens() == {lm.tokenizer.eos_token_id}


def test_adapter_folded_in_and_left_on_top_are_one_model(load_model, tiny_folders, tmp_path):
    from es2.training import save_adapter

    tuned = add_random_lora(load_model())
    tokens = torch.tensor(tuned.chat_tokens(PROMPTS[:1]))
    with torch.no_grad():
        expected = tuned.model(input_ids=tokens).logits
        save_adapter(tuned, tmp_path / "adapter", "tiny")
        merged = load_model(adapter=tmp_path / "adapter")
        on_top = load_model(adapter=tmp_path / "adapter", merge=False)
        torch.testing.assert_close(on_top.model(input_ids=tokens).logits, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(merged.model(input_ids=tokens).logits, expected, atol=1e-4, rtol=0)
    assert not hasattr(merged.model, "peft_config")
    assert not any(parameter.requires_grad for parameter in on_top.base.model.embed_tokens.parameters())
    assert any(parameter.requires_grad for parameter in on_top.model.parameters())
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == "tiny"
    assert saved["target_modules"] == sorted(saved["target_modules"])
    assert len(saved["target_modules"]) == 7
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 200_000


def test_folders_that_are_missing_or_hold_no_model_are_user_errors(tiny_folders, tmp_path):
    for wrong in (tmp_path, tmp_path / "no"):
        with pytest.raises(UserError, match=r"there is no config\.json in") as error:
            load_model(wrong)
        assert is_one_sentence(error)
        with pytest.raises(UserError, match=r"there is no adapter_config\.json in") as error:
            load_model(tiny_folders["llama"], wrong)
        assert is_one_sentence(error)


def test_no_chat_template_is_a_user_error(tiny_folders, tmp_path):
    shutil.copytree(tiny_folders["llama"], tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="chat template") as error:
        load_model(tmp_path / "plain")
    assert is_one_sentence(error)


def test_blocks_that_are_not_to_be_found_are_a_user_error():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.ModuleList([nn.Identity(), nn.Identity()])
            self.second = nn.ModuleList([nn.Identity(), nn.Identity()])

    with pytest.raises(UserError, match="2 lists of 2 blocks") as error:
        find_blocks(Two(), 2)
    assert is_one_sentence(error)


def test_base_of_a_plain_model_is_itself(load_model):
    lm = load_model()
    assert isinstance(lm, LanguageModel)
    assert lm.base is lm.model
