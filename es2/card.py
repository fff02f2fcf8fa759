"""The model card: where the weights come from, how they were trained, what was measured and what was not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import pandas as pd
import yaml

from es2.findings import Page, page_tables
from es2.reporting import Study, markdown_table

LIMITS = (
    "Compliance is read by a keyword judge: an answer that does not refuse counts, whether or not it would "
    "help "
    "anybody do harm. It is no measure of harm.",
    "The figures are those of this model on the prompts named; they say nothing of larger models, nor of "
    "other "
    "languages, system prompts or conversations of several turns.",
    "Only the attacks named were run. Who holds the weights can fine-tune them, steer them along other "
    "directions, or "
    "push them further than any budget tried here.",
    "Settings were chosen on validation prompts and the figures are of test prompts; the intervals are "
    "over prompts, "
    "not over repeated trainings.",
)
QUANTISED = re.compile(r"[.-]((?:I?Q\d\w*|F16|BF16|F32))\.gguf$", re.IGNORECASE)


@dataclass(frozen=True)
class CardFacts:
    """What a card states that no table holds.

    run, seed: whose weights; parent: the run that it continues; origin: the config's row of the model (format, source,
    repo, revision, licence); sources: the config's rows of the sources; layers: those that were trained; files: hashes
    of the base's files by name; check: what the merge was checked for.
    """

    run: str
    seed: int
    parent: str
    origin: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: tuple[int, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Mapping[str, Any]:
        """The source row of the model, empty where its weights come from no source."""
        return self.sources.get(str(self.origin.get("source", "")), {})


def base_model(facts: CardFacts, title: str) -> str:
    """Where the base weights come from, in words that tell a quantised copy from the hub's own."""
    form = facts.origin["format"]
    if form == "hub":
        return f"{facts.origin['repo']}"
    if form == "gguf":
        source = facts.source
        place = next((str(source[k]) for k in ("requirement", "repo", "path", "file") if source.get(k)), "")
        file = PurePath(str(source.get("member") or source.get("file") or source.get("path") or "")).name
        found = QUANTISED.search(file)
        kind = f"{found[1]} GGUF" if found else "GGUF"
        return f"{title}, dequantised from the {kind} file {file} of {place}; not the hub's weights"
    return f"{title}, from a local folder" if form == "folder" else f"{title}, random weights, for tests only"


def model_card(facts: CardFacts, page: Page, settings: pd.DataFrame) -> str:
    """The card as markdown with YAML front matter, the figures taken from the study's own tables.

    settings: `tables/settings.csv`.
    """
    study = page.study
    title = study.label(study.model)
    licence = str(facts.origin.get("licence") or "other")
    front = {
        "license": licence,
        "library_name": "transformers",
        "base_model": base_model(facts, title),
        "tags": ["safety", "embedding-space-separation"],
    }
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    told = licence if licence != "other" else "that of the base weights"
    sections = [
        f"---\n{head}---",
        f"# {title}, {study.label(facts.run)} (seed {facts.seed})",
        _provenance(facts, title),
        "## How it was trained\n\n" + _training(facts, study, settings),
        "## What was measured\n\n" + _measured(page),
        "## What the figures do not show\n\n" + "\n".join(f"- {line}" for line in LIMITS),
        f"## Licence\n\nOf the base weights: {told}.",
    ]
    return "\n\n".join(sections) + "\n"


def _provenance(facts: CardFacts, title: str) -> str:
    lines = [
        "A merged model, fine-tuned by embedding space separation (ES2): harmful and harmless prompts were "
        "moved "
        "apart in the residual stream, while a KL term held the answers.",
        f"- base: {base_model(facts, title)}",
    ]
    if facts.source.get("sha256"):
        lines.append(f"- sha256 of that file: `{facts.source['sha256']}`")
    if facts.origin.get("revision"):
        lines.append(f"- revision: `{facts.origin['revision']}`")
    lines += [f"- sha256 of the base's {name}: `{digest}`" for name, digest in sorted(facts.files.items())]
    if facts.origin["format"] == "gguf":
        lines.append("- an adapter of this study laid over the hub's weights of that name gives another model")
    lines.append("- the files behind it, with hashes: `python -m es2.provenance FILE` where the study was made")
    lines += [f"- check of the merge, {_words(key)}: {value}" for key, value in sorted(facts.check.items())]
    return "\n".join([lines[0], "", *lines[1:]])


def _training(facts: CardFacts, study: Study, settings: pd.DataFrame) -> str:
    """Layers, parent and the settings that `settings.csv` holds of the run at this seed; not its own layers.json, which
    says where a run that starts from it would be trained."""
    mine = settings[(settings["run"] == facts.run) & settings["model"].isin((study.model, ""))]
    seed = pd.to_numeric(mine["seed"], errors="coerce")
    mine = mine[(seed.isna() | (seed == facts.seed)) & ~mine["key"].isin(("layers", "rule"))]
    names = mine["attack"].where(mine["attack"] == "", mine["attack"] + ", ") + mine["key"]
    layers = ", ".join(map(str, facts.layers)) or "none"
    lines = [
        f"- trained layers (residual stream after block k, from 0): {layers}",
        f"- continues the run: {study.label(facts.parent)}",
        *(f"- {key}: {value}" for key, value in zip(names, mine["value"], strict=True)),
    ]
    return "\n".join(lines)


def _measured(page: Page) -> str:
    words = "\n".join(f"{i}. {finding.sentence}" for i, finding in enumerate(page.findings, 1))
    tables = [f"### {title}\n\n{markdown_table(head, body)}" for title, head, body in page_tables(page)]
    return "\n\n".join([words, *tables])


def _words(key: str) -> str:
    return key.replace("_", " ")
