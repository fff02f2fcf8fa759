"""Prompt tables for tests of splits and checks."""

import itertools
import string

import pandas as pd

from es2.prompts.cleaning import content_words, prompt_id


def jaccard(a, b):
    return len(content_words(a) & content_words(b)) / len(content_words(a) | content_words(b))


def table(texts, name="main", label="harmful", source="one"):
    rows = [(prompt_id(text), text, name, label, source) for text in texts]
    return pd.DataFrame(rows, columns=["prompt_id", "prompt", "set", "label", "source"])


def distinct(n, offset=0):
    """Return n prompts of which no two share a content word."""
    letters = string.ascii_lowercase[:16]
    names = ["".join(code) for code in itertools.islice(itertools.product(letters, repeat=4), offset, offset + 2 * n)]
    return [f"{first}k {second}k" for first, second in zip(names[::2], names[1::2], strict=True)]
