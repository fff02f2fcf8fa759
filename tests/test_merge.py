"""A tiny LoRA folded into its base, against peft on the fly; and what must not pass the check."""

import json
import stat

import pandas as pd
import pytest
import torch
from conftest import PROMPTS
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from es2.errors import UserError
from es2.files import write_json
from es2.merge import check, check_base, choose_prompts, merge, stated_base, top_gaps
from es2.models import load_model

N = 8


@pytest.fixture(scope="module")
def base(make_tiny, tmp_path_factory):
    folder = make_tiny("llama", tmp_path_factory.mktemp("models") / "tiny")
    write_json(folder / "generation_config.json", {"eos_token_id": [1, 5], "do_sample": False})
    return folder


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """An adapter far from zero, that says which model it belongs to."""
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.peft_config["default"].base_model_name_or_path = "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def merged(base, adapter, tmp_path):
    folder = tmp_path / "run" / "merged"
    merge(base, adapter, folder)
    return folder


def test_the_merged_folder_is_an_ordinary_model(base, adapter, merged):
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= {
        path.name for path in merged.iterdir()
    }
    assert [path.name for path in merged.parent.iterdir()] == ["merged"]
    model = AutoModelForCausalLM.from_pretrained(merged)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == [1, 5]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    separate = load_model(base, adapter, device="cpu", merge=False)
    assert text == separate.chat_text("Hi")
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, separate.model(tokens).logits, atol=1e-4, rtol=1e-4)
        assert (model(tokens).logits - load_model(base, device="cpu").model(tokens).logits).abs().max() > 0.1


def test_check_passes_a_sound_merge_and_says_what_it_saw(base, adapter, merged):
    found = check(base, adapter, merged, PROMPTS, max_new_tokens=N)
    assert found["max_logit_difference"] < 1e-4
    assert found | {"max_logit_difference": 0} == {
        "prompts": len(PROMPTS),
        "tolerance": 1e-3,
        "max_logit_difference": 0,
        "answers_equal": len(PROMPTS),
        "answers_differing_at_a_tie": 0,
        "base": "tiny",
    }


def test_check_refuses_the_base_alone_and_a_damaged_weight(base, adapter, merged):
    with pytest.raises(UserError, match="does not behave as it did on its base"):
        check(base, adapter, base, PROMPTS, max_new_tokens=N)
    weights = load_file(merged / "model.safetensors")
    weights["model.norm.weight"] *= 1.01
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"merge\.tolerance: 0\.001"):
        check(base, adapter, merged, PROMPTS, max_new_tokens=N)


def test_check_refuses_logits_that_are_not_numbers(base, adapter, merged):
    weights = load_file(merged / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="logits differ by nan"):
        check(base, adapter, merged, PROMPTS, max_new_tokens=N)


def test_gap_of_the_two_top_logits_where_answers_part(base):
    lm = load_model(base, device="cpu")
    prompts = list(PROMPTS[:3])
    answers = [[7, 8, 9], [7, 8], [4]]
    others = [[7, 8, 9], [7, 8, 3], [6]]
    expected = []
    for prompt, kept in ((prompts[1], [7, 8]), (prompts[2], [])):
        tokens = torch.tensor([lm.chat_tokens([prompt])[0] + kept])
        with torch.no_grad():
            top = lm.model(tokens).logits[0, -1].topk(2).values
        expected.append((top[0] - top[1]).item())
    assert top_gaps(lm, prompts, answers, others) == pytest.approx(expected, abs=1e-4)
    assert top_gaps(lm, prompts, answers, answers) == []


def test_a_tie_may_part_two_answers(base, adapter, merged, monkeypatch):
    """The merged model's answer to one prompt is changed at its first token."""
    from es2 import merge as module

    calls = []

    def generate(lm, sequences, limit):
        calls.append(None)
        answers = real(lm, sequences, limit)
        if len(calls) % 2 == 0:
            answers[2].tokens[0] = 3
        return answers

    real = module.generate
    monkeypatch.setattr(module, "generate", generate)
    with pytest.raises(UserError, match="1 of 6 answers differ"):
        check(base, adapter, merged, PROMPTS, max_new_tokens=N)
    monkeypatch.setattr(module, "top_gaps", lambda *_: [1e-4])
    found = check(base, adapter, merged, PROMPTS, max_new_tokens=N)
    assert (found["answers_equal"], found["answers_differing_at_a_tie"]) == (5, 1)


def test_the_adapter_must_state_the_shipped_base(adapter, tmp_path):
    assert stated_base(adapter) == "tiny"
    check_base(adapter, "tiny")
    with pytest.raises(UserError, match="relative to tiny, not to smollm2"):
        check_base(adapter, "smollm2")
    config = json.loads((adapter / "adapter_config.json").read_text())
    write_json(tmp_path / "adapter_config.json", config | {"base_model_name_or_path": None})
    with pytest.raises(UserError, match="a base it does not name"):
        check_base(tmp_path, "tiny")


def test_nothing_half_written_is_left(base, adapter, tmp_path, monkeypatch):
    """The tokenizer, which comes last, cannot be written."""
    from transformers import PreTrainedTokenizerFast

    def fail(*_args, **_options):
        raise OSError("no space left")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        merge(base, adapter, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_merging_again_overwrites_and_leaves_files_readable(base, adapter, merged):
    (merged / "check.json").write_text("{}")
    before = (merged / "model.safetensors").read_bytes()
    merge(base, adapter, merged)
    assert (merged / "model.safetensors").read_bytes() == before
    assert (merged / "check.json").exists()
    assert stat.S_IMODE((merged / "config.json").stat().st_mode) & stat.S_IRUSR


def test_prompts_are_chosen_by_their_ids():
    frame = pd.DataFrame({"prompt_id": ["c", "a", "b"], "prompt": ["three", "one", "two"]})
    assert choose_prompts(frame, 2) == ["one", "two"]
    assert choose_prompts(frame, 20) == ["one", "two", "three"]
    with pytest.raises(UserError, match="no prompts"):
        choose_prompts(frame.iloc[:0], 2)
