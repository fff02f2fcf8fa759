"""One sentence for the first mistake that pydantic finds: what, where, what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from es2.errors import UserError
from es2.registry import suggest
from es2.settings.types import COMMIT, NAME, PINNED, PINNED_PART, REPO, SHA256

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "finite_number": ("finite", ""),
}
_FORMS = {
    NAME: "is no name; use letters, digits, _ . and - and begin with a letter or digit",
    SHA256: "is no SHA-256; give its 64 hexadecimal digits in small letters",
    COMMIT: "is no commit; give its 40 hexadecimal digits, for a branch or tag may move",
    PINNED: "is not pinned; write name==version",
    PINNED_PART: "is not the pinned name of parts; write name{part}==version",
    REPO: "is no repository; write owner/name",
}
"""What is wrong with a text that has not the form of a pattern."""
_TAGS = ("union_tag_invalid", "union_tag_not_found")


def user_error(error: ValidationError, config: Any, prefix: str = "") -> UserError:
    """The sentence for the mistake that says most; `prefix` is where `config` stands in the whole config."""
    details = error.errors(include_url=False)
    # Of a value that fits no alternative of a union, every alternative complains: the innermost knows best, and a key
    # that is missing lies inside the mapping that lacks it.
    detail = max(
        details, key=lambda one: (len(_path(one, config)) + (one["type"] == "missing"), one["type"] not in _TYPES)
    )
    unknown = [one for one in details if one["type"] == "unknown_key"]
    detail = unknown[0] if unknown else detail
    return UserError(f"{place(detail, config, prefix)}: {_what(detail, details, config)}")


def place(detail: ErrorDetails, config: Any, prefix: str = "") -> str:
    """The dotted key of a mistake."""
    parts = [prefix] if prefix else []
    parts += [str(part) for part in _path(detail, config)]
    context = detail.get("ctx", {})
    if detail["type"] == "unknown_key":
        parts.append(context["key"])
    if detail["type"] == "missing":
        parts.append(str(detail["loc"][-1]))
    if detail["type"] in _TAGS:
        parts.append(str(context["discriminator"]).strip("'"))
    return ".".join(parts) or "config"


def _path(detail: ErrorDetails, config: Any) -> list[str | int]:
    """The location without what pydantic adds to it: names of alternatives, and the mark of a key."""
    path: list[str | int] = []
    for part in detail["loc"]:
        inside = isinstance(config, Mapping) and part in config
        if inside or (isinstance(config, Sequence) and isinstance(part, int) and part < len(config)):
            config = config[part]
            path.append(part)
    return path


def _what(detail: ErrorDetails, details: Sequence[ErrorDetails], config: Any) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "unknown_key":
        return f"there is no such key; {context['hint']}"
    if kind == "missing":
        return "this key is missing; add it (config/README.md says what it means)"
    if kind == "union_tag_not_found":
        return "this key is missing; it says which kind of row this is"
    if kind == "union_tag_invalid":
        known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return f"{context['tag']!r} is not known; {suggest(context['tag'], known)}"
    if kind == "string_pattern_mismatch":
        return f"{value!r} {_FORMS[context['pattern']]}"
    if kind == "too_short":
        least = context["min_length"]
        return f"it has {context['actual_length']} entries; give at least {least}"
    if kind == "too_long":
        return f"it has {context['actual_length']} entries; give at most {context['max_length']}"
    if kind == "string_too_short":
        return "the text is empty; write one, or leave the key out if it may be left out"
    return _wrong_value(detail, details, config)


def _wrong_value(detail: ErrorDetails, details: Sequence[ErrorDetails], config: Any) -> str:
    """A value of the wrong type or out of bounds; of a union, everything that would fit."""
    where = _path(detail, config)
    fits = [_expected(one) for one in details if _path(one, config) == where]
    wanted = " or ".join(dict.fromkeys(fits))
    value = detail["input"]
    shown = "nothing" if value is None else repr(value)[:60]
    hint = ""
    if isinstance(value, str) and any(word in wanted for word in ("number", "at least", "above")):
        hint = " (YAML reads 1e-5 as a text: write 1.0e-5)" if "e" in value.lower() else " without quotes"
    return f"{shown} does not fit; give {wanted}{hint}"


def _expected(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return str(context["expected"])
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"a number {word} {context[key]:g}" if key else f"a {word} number"
    return _TYPES.get(kind, detail["msg"][:1].lower() + detail["msg"][1:])
