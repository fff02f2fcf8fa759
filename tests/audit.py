"""Search what a finished study publishes for the text of harmful prompts and of the answers to them.

    python tests/audit.py results/smoke

Private are the answers, the parents' recorded answers with their states, and checkpoints: only their owner may read
them. The prompt sets hold the prompts, as their public sources do. Everything else under the results and the logs is
published, and must hold no piece of either. Of a finding the file and the line are said, never the text.
"""

import base64
import html
import importlib.resources
import json
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
PIECE = 20  # characters; shorter ones are said by anybody
LETTERS = 12  # of them: a row of numbers is no text
PRIVATE = ("answers/*.jsonl", "reference/*", "checkpoints/*")
OWN = (
    "LICENSE",
    "README.md",
    "docs/*.md",
    "config/**/*.*",
    "es2/**/*.py",
    "workflow/**/*.*",
    "es2/prompts/bundled/refusals.jsonl",
)
OTHERS = {
    "snakemake": ("assets/data/**/*", "report/**/*"),  # the code of the report's page
    "huggingface_hub": ("templates/*.md",),  # what a saved adapter's card is made from
}
"""Texts that published files consist of: by folder of this repository, and by package."""
PROMPTS, PICTURES = ".parquet", ".png"
_EMBEDDED = re.compile(r"data:[\w/+.-]+;[^,\s\"']*base64,([A-Za-z0-9+/=]+)")
_START = re.compile(r"\w+")


def plain(text: str) -> str:
    """Text as it is compared: no case, and one space for any run of spaces, also of escaped ones."""
    return " ".join(re.sub(r"\\[nrt]", " ", text).casefold().split())


def pieces(text: str) -> Iterator[str]:
    """Every piece of PIECE characters that begins where a word does."""
    text = plain(text)
    for word in _START.finditer(text):
        piece = text[word.start() : word.start() + PIECE]
        if len(piece) == PIECE and sum(character.isalpha() for character in piece) >= LETTERS:
            yield piece


def private_files(results: Path) -> list[Path]:
    """The files of a study that hold answers to harmful prompts, or states from which they can be told."""
    return sorted(path for pattern in PRIVATE for path in results.glob(f"models/*/*/*/{pattern}") if path.is_file())


def readable_by_others(files: Iterable[Path]) -> list[Path]:
    """Those that somebody beside their owner may read or write."""
    return [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]


def harmful_texts(results: Path, models: Path) -> Iterator[str]:
    """The harmful prompts of a study, and every answer to one of them."""
    prompts = pd.concat([pd.read_parquet(path) for path in sorted(results.glob(f"prompts/*{PROMPTS}"))])
    prompts = prompts[prompts["label"] == "harmful"]
    harmful = set(prompts["prompt_id"])
    yield from prompts["prompt"]
    for path in results.glob("models/*/*/*/answers/*.jsonl"):
        yield from (row["answer"] for row in _rows(path) if row["prompt_id"] in harmful)
    for path in results.glob("models/*/*/*/reference/answers.jsonl"):
        tokenizer = _tokenizer(models / path.relative_to(results).parts[1])
        yield from (tokenizer.decode(row["answer_tokens"]) for row in _rows(path) if row["prompt_id"] in harmful)


def published(results: Path, *logs: Path) -> list[Path]:
    """Everything else that a study leaves, but pictures, which have a twin of text."""
    kept = set(private_files(results))
    found = [path for folder in (results, *logs) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if path not in kept and path.suffix not in (PROMPTS, PICTURES)]


def words_of(path: Path) -> str:
    """The text of a published file; of weights what stands before them, of a page also what is packed into it."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
    text = content.decode("utf-8", errors="replace")
    packed = [base64.b64decode(data).decode("utf-8", errors="replace") for data in _EMBEDDED.findall(text)]
    return html.unescape("\n".join([_EMBEDDED.sub("", text), *packed]))


def leaks(results: Path, models: Path, *logs: Path) -> tuple[list[str], str]:
    """Where a piece of a harmful text stands in a published file, and what was searched."""
    texts = set(harmful_texts(results, models))
    known = {piece for text in texts for piece in pieces(text)}
    for path in [*_templates(), *models.glob("*/chat_template.jinja")]:
        known.difference_update(pieces(words_of(path)))
    files = published(results, *logs)
    found = []
    for path in files:
        lines = words_of(path).splitlines()
        wrong = [number for number, line in enumerate(lines, 1) if any(piece in known for piece in pieces(line))]
        # A text that is broken into lines is found in the whole, not in a line.
        if wrong or any(piece in known for piece in pieces(" ".join(lines))):
            found.append(f"{path}: {len(wrong)} lines, the first is {wrong[0] if wrong else 'broken'}")
    return found, f"{len(files)} files were searched for {len(known)} pieces of {len(texts)} texts"


def _templates() -> Iterator[Path]:
    """The files of OWN and OTHERS."""
    folders = {ROOT: OWN} | {Path(str(importlib.resources.files(name))): found for name, found in OTHERS.items()}
    for folder, patterns in folders.items():
        yield from (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _rows(path: Path) -> Iterator[dict]:
    with open(path, encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def _tokenizer(folder: Path) -> object:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def main(results: Path) -> int:
    """Say what was found; 0 where nothing was."""
    open_to_others = readable_by_others(private_files(results))
    root = results.parents[1]
    logs = (root / "logs" / results.name, root / ".snakemake/log")
    found, searched = leaks(results, root / "resources/models", *logs)
    for path in open_to_others:
        print(f"{path} may be read by others")
    for leak in found:
        print(f"a harmful text stands in {leak}")
    print(f"{searched}; {len(private_files(results))} private files; {len(found)} leaks, {len(open_to_others)} open.")
    return 1 if found or open_to_others else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
