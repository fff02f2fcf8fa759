"""A model of the study's catalogue as a judge: greedy outputs to prompts, in its chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def without_specials(lm: LanguageModel, text: str) -> str:
    """`text` with a blank inside whatever the tokenizer reads as a special token: an answer must not end its turn."""
    for token in lm.tokenizer.added_tokens_decoder.values():
        if token.special and len(token.content) > 1:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text
