"""Plain transformers, one prompt at a time: what the fast paths are checked against."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from es2.examples import Example
from es2.models import LanguageModel


def add_random_lora(lm: LanguageModel, scale: float = 0.2, dropout: float = 0.0) -> LanguageModel:
    """A LoRA adapter with random weights, so that the model differs from its parent."""
    from es2.training import add_lora

    add_lora(lm, {"rank": 4, "alpha": 8, "dropout": dropout, "targets": "all-linear"}, seed=3)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(scale * torch.randn_like(parameter))
    lm.model.eval()
    return lm


def residuals(lm: LanguageModel, tokens: Sequence[int], pad: str = "none", n_pad: int = 5) -> Tensor:
    """Residual stream [L, d] at the last token of one sequence by `output_hidden_states`, padded as told.

    The last layer is hooked: the last entry of hidden_states is post-norm.
    """
    ids, mask = list(tokens), [1] * len(tokens)
    if pad == "left":
        ids, mask = [0] * n_pad + ids, [0] * n_pad + mask
    if pad == "right":
        ids, mask = ids + [0] * n_pad, mask + [0] * n_pad
    last = max(place for place, real in enumerate(mask) if real)
    positions = (torch.tensor([mask]).cumsum(dim=1) - 1).clamp(min=0)
    caught: list[Tensor] = []

    def hook(_module: object, _inputs: object, output: object) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    handle = lm.blocks[-1].register_forward_hook(hook)
    with torch.no_grad():
        out = lm.base(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.tensor([mask]),
            position_ids=positions,
            output_hidden_states=True,
            use_cache=False,
        )
    handle.remove()
    return torch.stack([*(states[0, last] for states in out.hidden_states[1:-1]), caught[0][0, last]])


def answer(lm: LanguageModel, tokens: Sequence[int], n: int) -> tuple[list[int], bool]:
    """Greedy answer of transformers' own generate to one prompt: tokens without the end token, and whether it ended."""
    out = lm.base.generate(
        input_ids=torch.tensor([list(tokens)]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        do_sample=False,
        max_new_tokens=n,
        pad_token_id=0,
    )
    new = out[0, len(tokens) :].tolist()
    return (new[:-1], True) if new[-1] in lm.end_tokens() else (new, False)


def edited_answer(
    lm: LanguageModel, tokens: Sequence[int], n: int, layers: Sequence[int], edit: Callable[..., Tensor], row: int
) -> list[int]:
    """Greedy answer without a cache: every token recomputes the whole sequence, edited at the last prompt token and
    every generated one."""
    new: list[int] = []

    def hook_for(layer: int) -> Callable[..., object]:
        def hook(_module: object, _inputs: object, output: object) -> object:
            states = (output[0] if isinstance(output, tuple) else output).clone()
            for step in range(states.shape[1] - len(tokens) + 1):
                place = len(tokens) - 1 + step
                states[:, place] = edit(layer, states[:, place], torch.tensor([row]), step)
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return hook

    handles = [lm.blocks[layer].register_forward_hook(hook_for(layer)) for layer in layers]
    with torch.no_grad():
        while len(new) < n:
            logits = lm.base(input_ids=torch.tensor([[*tokens, *new]]), use_cache=False).logits[0, -1]
            token = int(logits.argmax())
            if token in lm.end_tokens():
                break
            new.append(token)
    for handle in handles:
        handle.remove()
    return new


def n_hooks(lm: LanguageModel) -> int:
    """Forward hooks on the model's blocks."""
    return sum(len(block._forward_hooks) for block in lm.blocks)


def states_along(lm: LanguageModel, example: Example, layer: int) -> Tensor:
    """Residual stream [t, d] after a block at all tokens of an example but the answer's last."""
    seen: dict[str, Tensor] = {}
    handle = lm.blocks[layer].register_forward_hook(lambda _module, _inputs, output: seen.update(states=output))
    ids = torch.tensor([[*example.prompt_tokens, *example.answer_tokens[:-1]]])
    lm.model(input_ids=ids, use_cache=False)
    handle.remove()
    return seen["states"][0]
