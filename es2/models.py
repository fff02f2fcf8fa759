"""Causal language models: loading them, finding their parts, and turning prompts into chat tokens.

One convention everywhere (method.md section 2): *layer k* is the residual stream after block k (0-based), before the
next block and before the final norm; the *last prompt token* ends the chat template with its generation prompt.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from es2.errors import UserError
from es2.low_rank import fuse
from es2.whole import is_whole, put_weights

TEMPLATE = "template"
NO_SYSTEM_PROMPT = "none"
HEAD_PIECE = 2048  # of the vocabulary, whose weights and logits stay in a processor's cache


@dataclass
class Cursor:
    """Where in the running forward pass the tokens of interest lie; residual edits read it.

    rows [b] are the prompts' indices in the caller's list, positions [b] the indices of the tokens in this forward's
    sequence (of a packed row all lie in the one sequence there is: see es2.packing), step the number of the answer
    token that this forward predicts (0 = at the last prompt token).
    """

    rows: Tensor
    positions: Tensor
    step: int = 0


@dataclass
class LanguageModel:
    """A causal language model with its tokenizer and the parts that the study touches."""

    model: Any
    tokenizer: Any
    system_prompt: str = TEMPLATE
    cursor: Cursor | None = field(default=None, repr=False)
    packs: bool | None = field(default=None, repr=False)
    """Whether sequences may lie end to end in one row; not known yet if None (see `es2.packing.can_pack`)."""

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, without the adapter's wrapper."""
        wrapped = hasattr(self.model, "peft_config") and hasattr(self.model, "get_base_model")
        return self.model.get_base_model() if wrapped else self.model

    @property
    def decoder(self) -> nn.Module:
        """The stack of blocks with its final norm, without the LM head."""
        return self.base.get_decoder()

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks in order."""
        return find_blocks(self.decoder, self.base.config.get_text_config().num_hidden_layers)

    @property
    def n_layers(self) -> int:
        """Number of blocks L."""
        return len(self.blocks)

    @property
    def width(self) -> int:
        """Size d of the residual stream."""
        return int(self.base.config.get_text_config().hidden_size)

    @property
    def n_tokens(self) -> int:
        """Number of token ids that have an input embedding."""
        return int(self.base.get_input_embeddings().weight.shape[0])  # type: ignore[index]

    @property
    def device(self) -> torch.device:
        """Device of the input embedding."""
        return self.base.get_input_embeddings().weight.device  # type: ignore[return-value]

    @contextmanager
    def looking_at(self, cursor: Cursor | None) -> Iterator[None]:
        """Set the cursor within the block; the one before is put back, also after an exception."""
        before, self.cursor = self.cursor, cursor
        try:
            yield
        finally:
            self.cursor = before

    def checkpoint_blocks(self) -> None:
        """Gradient checkpointing: of each block keep what enters it, and run it again in the backward pass.

        Only the block itself is run again, not the hooks that record or edit what leaves it.
        """
        for block in self.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)

    @property
    def logit_factor(self) -> float:
        """What the family multiplies its logits with."""
        config = self.base.config.get_text_config()
        scale, divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
        return (1.0 if scale is None else float(scale)) / (1.0 if divisor is None else float(divisor))

    @property
    def logit_cap(self) -> float | None:
        """The bound that the family's softcap keeps its logits within."""
        return getattr(self.base.config.get_text_config(), "final_logit_softcapping", None)

    def logits(self, states: Tensor) -> Tensor:
        """Logits [..., |V|] of post-norm final states [..., d], with the family's scale and softcap applied."""
        logits = self._through_head(states)
        if self.logit_factor != 1.0:
            logits = logits * self.logit_factor
        if (cap := self.logit_cap) is not None:
            logits = cap * torch.tanh(logits / cap)
        return logits

    def _through_head(self, states: Tensor) -> Tensor:
        """What the LM head makes of `states`: on a CPU, unless for a gradient, in pieces of the vocabulary.

        The same sums in less time, for the product of a few rows with all of the vocabulary does not stay in the cache.
        """
        head = self.base.get_output_embeddings()
        if type(head) is not nn.Linear or torch.is_grad_enabled() or states.device.type != "cpu":
            return head(states)
        weights = head.weight.split(HEAD_PIECE)
        biases = [None] * len(weights) if head.bias is None else head.bias.split(HEAD_PIECE)
        return torch.cat([linear(states, weight, bias) for weight, bias in zip(weights, biases, strict=True)], dim=-1)

    def end_tokens(self) -> set[int]:
        """Token ids that end an answer: the tokenizer's and the generation config's."""
        ends = getattr(getattr(self.base, "generation_config", None), "eos_token_id", None)
        listed = ends if isinstance(ends, list) else [ends]
        return {int(token) for token in [*listed, self.tokenizer.eos_token_id] if token is not None}

    def chat_tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt in the chat template, generation prompt included."""
        texts = [self.chat_text(prompt) for prompt in prompts]
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []

    def around(self, prompt: str) -> tuple[list[int], list[int]]:
        """The chat template's tokens up to the end of a prompt, and those after it."""
        text = self.chat_text(prompt)
        end = text.rfind(prompt) + len(prompt)
        before, after = self.tokenizer([text[:end], text[end:]], add_special_tokens=False)["input_ids"]
        return before, after

    @property
    def n_after(self) -> int:
        """How many of the chat template's tokens stand after a prompt."""
        return len(self.around("prompt")[1])

    def n_read(self, positions: int | None) -> int:
        """At how many of a prompt's last tokens directions are read: of those after it in the chat template the last
        `positions`, None for all; one at least."""
        return max(1, self.n_after if positions is None else min(positions, self.n_after))

    def chat_text(self, prompt: str) -> str:
        """The chat template around one user prompt, as text."""
        messages = [{"role": "user", "content": prompt}]
        if self.system_prompt != TEMPLATE:
            content = "" if self.system_prompt == NO_SYSTEM_PROMPT else self.system_prompt
            messages.insert(0, {"role": "system", "content": content})
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise UserError(
                f"models: the chat template refuses system_prompt {self.system_prompt!r} ({error}); "
                f"set it to {TEMPLATE}"
            ) from error

    def template_sha256(self) -> str:
        """Hash of the chat template and the system prompt: what turns a prompt into tokens."""
        return hashlib.sha256(f"{self.tokenizer.chat_template}\n{self.system_prompt}".encode()).hexdigest()


def find_blocks(decoder: nn.Module, n_layers: int) -> nn.ModuleList:
    """The decoder's list of blocks: its one direct ModuleList of `n_layers` entries."""
    lists = [child for child in decoder.children() if isinstance(child, nn.ModuleList) and len(child) == n_layers]
    if len(lists) != 1:
        raise UserError(
            f"models: {type(decoder).__name__} has {len(lists)} lists of {n_layers} blocks where one was expected; "
            "this architecture needs an entry in es2/models.py"
        )
    return lists[0]


def load_model(
    folder: str | Path,
    adapter: str | Path | None = None,
    *,
    dtype: str = "float32",
    device: str | None = None,
    system_prompt: str = TEMPLATE,
    merge: bool = True,
) -> LanguageModel:
    """Load a model folder, with an adapter folded into its weights (`merge`) or left trainable on top. Where the
    adapter's folder holds all weights of a model, they take the place of the folder's.

    Raises UserError if the folder or the adapter is missing or the tokenizer has no chat template.
    """
    for path, file in ((folder, "config.json"), (adapter, "adapter_config.json")):
        if path is not None and not (Path(path) / file).is_file():
            raise UserError(
                f"models: there is no {file} in {path}; let the study make it, or correct the path in the config"
            )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype), local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if tokenizer.chat_template is None:
        raise UserError(f"models: the tokenizer in {folder} has no chat template; es2 needs a chat model")
    if adapter is not None and is_whole(adapter):
        put_weights(model, adapter)
    elif adapter is not None:
        model = attach_adapter(model, adapter, trainable=not merge)
        model = model.merge_and_unload() if merge else model
    return LanguageModel(model.to(device).eval(), tokenizer, system_prompt)  # type: ignore[arg-type]


def load_run(
    manifest: str | Path,
    adapter: Sequence[str],
    cfg: Mapping[str, Any],
    *,
    merge: bool = True,
    device: str | None = None,
) -> LanguageModel:
    """Load a run from its files: the model's manifest, the adapter's files (none for the base), `model` settings.

    Not merged, it is to be trained further: UserError where it has no adapter that could be.
    """
    folder = Path(adapter[0]).parent if adapter else None
    if folder is not None and not merge and is_whole(folder):
        raise UserError(
            f"runs: {folder} holds a whole model, and training goes on with an adapter; make it a row of `models` to "
            "train on it"
        )
    kept = {"dtype": cfg["dtype"], "system_prompt": cfg["system_prompt"]}
    return load_model(Path(manifest).parent, folder, merge=merge, device=device, **kept)


def attach_adapter(model: PreTrainedModel, adapter: str | Path, trainable: bool) -> Any:
    """Put a saved LoRA adapter on a model; where it is to be trained further, by the fused product."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    if trainable:
        fuse(adapted)
    return adapted
