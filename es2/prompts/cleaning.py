"""When two prompts are the same, and when they ask for nearly the same thing (method.md §3)."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from es2.errors import UserError

# Function words and light verbs carry no topic: what two prompts share by grammar alone is no likeness.
# Verbs of asking (write, create, explain) count: without them chains of paraphrases join unlike requests.
_STOPWORD_TEXT = """
a an the this that these those and or but nor so if then than as of to in on at by for from with without
into onto about over under between through during before after above below up down out off again while
because until not no yes i me my mine myself we us our ours you your yours yourself he him his she her
hers it its they them their theirs who whom whose which what when where why how is are am was were be
been being do does did doing have has had having will would shall should can could may might must there
here any some all each every both few more most other such only own same too very just also please using
use via make makes making made get gets getting got let lets don cant dont im ive youre its thats isnt
doesnt
"""
STOPWORDS = frozenset(_STOPWORD_TEXT.split())
_WORD = re.compile(r"\w+")
_APOSTROPHE = re.compile(r"['’]")  # noqa: RUF001 - the typographic apostrophe is meant
_ENDINGS = (("sses", "ss"), ("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""))
_LONGEST_IMPERATIVE, _SHORTEST_IMPERATIVE = 25, 6
_SENTENCE_END = re.compile(r"[.!?:]\s")
_OPENERS_TEXT = """
what which who whom whose when where why how is are am was were be do does did have has had will would
shall should can could may might must i we you he she it they my our your his her its their the a an
this that these those there in on at for from with if although because since as to of by after before
while during hi hello hey thanks thank ok okay so well yes no not and or but
"""
_NOT_AN_IMPERATIVE = frozenset(_OPENERS_TEXT.split())


def normalise(text: str) -> str:
    """Fold what does not change a request: Unicode form (NFKC), case, white space, punctuation at the ends.

    A text that is punctuation only is kept as it is, so that it does not become empty.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    collapsed = " ".join(folded.split())
    first, last = 0, len(collapsed)
    while first < last and _is_margin(collapsed[first]):
        first += 1
    while last > first and _is_margin(collapsed[last - 1]):
        last -= 1
    return collapsed[first:last] or collapsed


def _is_margin(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P")


def prompt_id(text: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the normalised text: equal for exact duplicates."""
    return hashlib.sha256(normalise(text).encode("utf-8")).hexdigest()[:16]


def content_words(text: str) -> frozenset[str]:
    """Lightly stemmed words of a prompt without `STOPWORDS`; all its words where nothing else is left."""
    words = _WORD.findall(_APOSTROPHE.sub("", normalise(text)))
    return frozenset(_stem(word) for word in words if word not in STOPWORDS) or frozenset(words)


def _stem(word: str) -> str:
    """Strip -s, -ed and -ing, then a doubled consonant or a final e: hacks, hacked and hacking are one."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            word = word[: len(word) - len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        return word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def form_of(text: str) -> str:
    """Return `question`, `imperative` (AdvBench's form: one imperative sentence of 6-25 words) or `other`.

    An imperative is told by its first word, which must not be one that opens a statement, a question or a
    greeting.
    """
    stripped = text.strip()
    if "?" in stripped:
        return "question"
    words = stripped.split()
    if not _SHORTEST_IMPERATIVE <= len(words) <= _LONGEST_IMPERATIVE or _SENTENCE_END.search(stripped):
        return "other"
    opening = _APOSTROPHE.split(words[0].lower().strip(",;"))[0]
    return "other" if opening in _NOT_AN_IMPERATIVE or not opening.isalpha() else "imperative"


def drop_duplicates(prompts: pd.DataFrame, rank: Sequence[str]) -> pd.DataFrame:
    """Keep each prompt once: in the set that comes first in `rank`, and there its first spelling by alphabet.

    `prompts` has the columns prompt_id, prompt, set, label and source. Raises UserError for a prompt that
    one set calls harmful and another safe: no split can mend that.
    """
    labels = prompts.groupby("prompt_id")["label"].nunique()
    if contradictory := sorted(labels.index[labels > 1]):
        rows = prompts[prompts.prompt_id == contradictory[0]].drop_duplicates("label")
        first, second = (f"{row.label} in prompt_sets.{row.set}" for row in rows.head(2).itertuples())
        raise UserError(
            f"{len(contradictory)} prompt(s) stand under both labels, the first (id {contradictory[0]}) as "
            f"{first} and as {second}: take it out of one of the two."
        )
    order = prompts["set"].map({name: place for place, name in enumerate(rank)})
    ordered = prompts.assign(_order=order).sort_values(["_order", "prompt", "source"], kind="stable")
    kept = ordered.drop_duplicates("prompt_id")
    return kept.drop(columns="_order").sort_index()
