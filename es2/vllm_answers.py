"""Greedy answers by vLLM, an optional package, for attacks that change only what is asked (section 6).

The same token sequences go in and the same `Answer`s come out as with `es2.generation.generate`, of which it takes the
place under `generation.backend: vllm`. vLLM's kernels add numbers up in another order, so an answer may part from ours
where two tokens are almost equally likely. An attack that edits states, or reads gradients, has ours whatever the
config says. A run's adapter is applied on top of the model's folder, and nothing is merged.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from es2.errors import UserError
from es2.generation import Answer
from es2.models import LanguageModel
from es2.whole import is_whole

BACKEND = "vllm"
UNEDITED = frozenset({"direct", "validation", "prefill", "published"})
"""Kinds of attack that leave the model as it is."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The LoRA ranks that vLLM makes room for."""
Write = Callable[[Sequence[Sequence[int]]], list[Answer]]


def wanted(cfg: Mapping[str, Any]) -> bool:
    """Whether a job's answers are vLLM's: its config asks for it and its attack edits nothing."""
    return bool(cfg["generation"]["backend"] == BACKEND and cfg["attack"]["kind"] in UNEDITED)


def vllm_writer(
    lm: LanguageModel, manifest: str | Path, adapter: Sequence[str], cfg: Mapping[str, Any], seed: int
) -> Write:
    """A function that answers token sequences, in their order, on an engine that is started here, once.

    lm: the run, for its tokenizer and the tokens that end an answer; its weights are not used, so it may lie on the
    CPU. manifest: beside it lie the model's files; adapter: the run's adapter files, none for the base. cfg: `model`
    (dtype) and `generation` (max_new_tokens, batch_rows) settings.
    """
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    folder = Path(adapter[0]).parent if adapter else None
    lora = {} if folder is None else {"enable_lora": True, "max_lora_rank": _room(folder)}
    limits = cfg["generation"]
    engine = LLM(
        model=str(Path(manifest).parent),
        dtype=cfg["model"]["dtype"],
        max_num_seqs=limits["batch_rows"],
        enable_prefix_caching=True,
        seed=seed,
        **lora,
    )
    ends = lm.end_tokens()
    greedy = SamplingParams(
        temperature=0.0, max_tokens=limits["max_new_tokens"], stop_token_ids=sorted(ends), detokenize=False
    )
    request = None if folder is None else LoRARequest("run", 1, str(folder))

    def write(sequences: Sequence[Sequence[int]]) -> list[Answer]:
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in sequences]
        outputs = engine.generate(prompts, greedy, lora_request=request, use_tqdm=False) if prompts else []
        return [_answer(lm, list(output.outputs[0].token_ids), ends) for output in outputs]

    return write


def _answer(lm: LanguageModel, tokens: list[int], ends: set[int]) -> Answer:
    """An answer without the token that ended it, which vLLM leaves at its end."""
    finished = bool(tokens) and tokens[-1] in ends
    kept = tokens[:-1] if finished else tokens
    return Answer(kept, lm.tokenizer.decode(kept, skip_special_tokens=True).strip(), finished)


def _room(adapter: Path) -> int:
    """The smallest of vLLM's ranks that holds the adapter's. UserError where it is a whole model, or has more."""
    if is_whole(adapter):
        raise UserError(f"generation.backend: vllm reads no whole model, as {adapter} holds; write transformers")
    rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    fitting = [size for size in RANKS if size >= rank]
    if not fitting:
        raise UserError(f"generation.backend: vllm has no room for a LoRA of rank {rank}; write transformers")
    return fitting[0]
