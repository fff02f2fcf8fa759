"""A model of the study's catalogue as a judge: greedy outputs to prompts, in its chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from es2.errors import UserError
from es2.generation import generate
from es2.models import LanguageModel, load_run
from es2.progress import progress


def say_all(prompts: Sequence[str], model: Mapping[str, Any], max_new_tokens: int, batch_rows: int) -> list[str]:
    """Greedy outputs of at most `max_new_tokens` tokens, in the order of `prompts`.

    model: `manifest` (its folder is the model's), `dtype`, `system_prompt`.
    """
    lm = load_run(model["manifest"], [], model)
    sequences = lm.chat_tokens([without_specials(lm, prompt) for prompt in prompts])
    with progress("verdicts", len(prompts)) as advance:
        return [one.text for one in generate(lm, sequences, max_new_tokens, batch_rows, advance)]


def odds_all(
    prompts: Sequence[str], model: Mapping[str, Any], outputs: tuple[str, str], batch_rows: int
) -> list[float]:
    """The log odds of the first of two outputs against the second, in the order of `prompts`.

    They are taken where the tokens of the two first differ, after what both begin with. UserError where they do not.
    """
    lm = load_run(model["manifest"], [], model)
    one, other = lm.tokenizer(list(outputs), add_special_tokens=False)["input_ids"]
    place = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if place is None:
        raise UserError(f"judges: this model's tokenizer does not tell {outputs[0]!r} from {outputs[1]!r}")
    texts = [without_specials(lm, prompt) for prompt in prompts]
    sequences = [[*ids, *one[:place]] for ids in lm.chat_tokens(texts)]
    with progress("verdicts", len(prompts)) as advance:
        answers = generate(lm, sequences, 1, batch_rows, advance, keep_states=True)
    states = torch.stack([answer.states[0] for answer in answers if answer.states is not None])
    with torch.no_grad():
        logits = lm.logits(states.to(lm.device, lm.base.dtype)).float()
    return (logits[:, one[place]] - logits[:, other[place]]).tolist()


def without_specials(lm: LanguageModel, text: str) -> str:
    """`text` with a blank inside whatever the tokenizer reads as a special token: an answer must not end its turn."""
    for token in lm.tokenizer.added_tokens_decoder.values():
        if token.special and len(token.content) > 1:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text
