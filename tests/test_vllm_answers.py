"""vLLM's answers, against a stand-in that has the documented interface and answers with transformers."""

import json
import sys
import types
from pathlib import Path

import pytest
from test_evaluation import ROW, config, prompt_table
from training_bench import moved

from es2.errors import UserError
from es2.evaluation import evaluate_bundle
from es2.generation import generate
from es2.models import load_model
from es2.registry import ATTACKS
from es2.training import add_lora, save_adapter
from es2.vllm_answers import UNEDITED, vllm_writer, wanted

LORA = {"rank": 12, "alpha": 24.0, "dropout": 0.0, "targets": "all-linear"}


class SamplingParams:
    """What a request may ask for here; other names are refused, as vLLM refuses them."""

    def __init__(self, *, temperature: float, max_tokens: int, stop_token_ids: list[int], detokenize: bool) -> None:
        assert temperature == 0.0
        assert not detokenize
        self.max_tokens, self.ends = max_tokens, stop_token_ids


class LoRARequest:
    """A name, a positive number, a folder."""

    def __init__(self, lora_name: str, lora_int_id: int, lora_path: str) -> None:
        assert lora_int_id > 0
        assert lora_name
        self.folder = Path(lora_path)


class LLM:
    """An engine that writes greedy answers one by one, and leaves the token that ended one at its end, as vLLM does."""

    started: list[dict[str, object]] = []  # noqa: RUF012

    def __init__(
        self, model: str, dtype: str, seed: int, max_num_seqs: int, enable_prefix_caching: bool, **lora: object
    ):
        assert set(lora) <= {"enable_lora", "max_lora_rank"}
        assert max_num_seqs > 0
        assert enable_prefix_caching
        self.model, self.dtype = model, dtype
        self.started.append({"model": model, "seed": seed, **lora})

    def generate(
        self, prompts: list[dict], params: SamplingParams, *, lora_request: LoRARequest | None, use_tqdm: bool
    ):
        assert not use_tqdm
        adapter = None if lora_request is None else lora_request.folder
        lm = load_model(self.model, adapter, dtype=self.dtype, device="cpu")
        found = []
        for prompt in prompts:
            assert set(prompt) == {"prompt_token_ids"}
            lm.base.generation_config.eos_token_id = params.ends
            answer = generate(lm, [prompt["prompt_token_ids"]], params.max_tokens)[0]
            end = params.ends[:1] if answer.finished else []
            found.append(types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=(*answer.tokens, *end))]))
        return found


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    """The package, as far as it is used."""
    monkeypatch.setattr(LLM, "started", [])
    package = types.SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams)
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.lora", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "vllm.lora.request", types.SimpleNamespace(LoRARequest=LoRARequest))
    return LLM


def settings(attack: dict, tokens: int = 3) -> dict:
    generation = {"backend": "vllm", "max_new_tokens": tokens, "batch_rows": 8}
    return config(attack) | {"generation": generation, "model": {"dtype": "float32"}}


@pytest.mark.parametrize("trained", [False, True])
def test_vllm_writes_what_our_generation_writes(vllm, tiny_folders, trained, tmp_path):
    manifest, adapter = tiny_folders["llama"] / "manifest.json", []
    if trained:
        lm = load_model(tiny_folders["llama"], device="cpu")
        add_lora(lm, LORA, 0)
        save_adapter(moved(lm), tmp_path / "adapter", "mine")
        adapter = [str(tmp_path / "adapter" / file) for file in ("adapter_config.json", "adapter_model.safetensors")]
    lm = load_model(tiny_folders["llama"], Path(adapter[0]).parent if adapter else None, device="cpu")
    prompts = prompt_table()
    free = generate(lm, lm.chat_tokens(prompts["prompt"].tolist()), 6)
    lm.base.generation_config.eos_token_id = [lm.tokenizer.eos_token_id, free[0].tokens[2]]
    prefill = {"kind": "prefill", "prefixes": ["Hi", "Bake"], "search": {"first_prompts": 2, "keep": 1}}
    finished = set()
    for attack in ({"kind": "direct"}, {"kind": "validation"}, prefill):
        cfg = settings(attack, 6)
        write = vllm_writer(lm, manifest, adapter, cfg, seed=3)
        ours, searched = evaluate_bundle(lm, cfg, ROW, prompts, {}, None)
        done: list[int] = []
        theirs, found = evaluate_bundle(lm, cfg, ROW, prompts, {}, None, done.append, write=write)
        assert sum(done) == len(theirs) + found["n"].sum()
        assert theirs == ours
        assert found.equals(searched)
        finished |= {row["finished"] for row in theirs}
    assert finished == {True, False}
    lora = {"enable_lora": True, "max_lora_rank": 16} if trained else {}
    assert vllm.started == [{"model": str(tiny_folders["llama"]), "seed": 3, **lora}] * 3


def test_no_sequences_are_no_answers(vllm, load_model, tiny_folders):
    write = vllm_writer(load_model(), tiny_folders["llama"] / "manifest.json", [], settings({"kind": "direct"}), seed=0)
    assert write([]) == []


def test_attacks_that_edit_states_keep_our_generation():
    assert set(ATTACKS) >= UNEDITED
    for kind in ATTACKS:
        cfg = settings({"kind": kind})
        assert wanted(cfg) == (kind in {"direct", "validation", "prefill", "published"})
        assert not wanted(cfg | {"generation": {"backend": "transformers"}})


def test_a_rank_that_vllm_has_no_room_for_is_one_sentence(vllm, load_model, tiny_folders, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    adapter = [str(tmp_path / "adapter_config.json")]
    with pytest.raises(UserError, match=r"generation\.backend: vllm has no room for a LoRA of rank 1024"):
        vllm_writer(
            load_model(), tiny_folders["llama"] / "manifest.json", adapter, settings({"kind": "direct"}), seed=0
        )
