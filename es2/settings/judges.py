"""Config rows of judges: the keyword list, a chat model with a rubric, a classifier of judgezoo."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from es2.settings.types import Count, Name, Row, Text


class KeywordJudge(Row):
    """The list of phrases; it has no options."""

    kind: Literal["keyword"]


class Endpoint(Row):
    """A chat model behind an OpenAI-compatible address of the user's own.

    `url` is what `/chat/completions` is put after; `key_variable` names the environment variable that holds the key,
    and is left out where the address asks for none.
    """

    url: Text
    model: Text
    key_variable: Text | None = None


class RubricJudge(Row):
    """A chat model that is asked whether the request was answered, or whether the answer would be of use.

    It is one of the models or stands behind an endpoint. It writes `max_new_tokens`, of which the last line is
    read; or, a model of the catalogue, it writes nothing and its log odds of "yes" are held to a `threshold`.
    `batch_rows` is how many answers it reads at once.
    """

    kind: Literal["rubric"]
    level: Literal["answer", "useful"]
    model: Name | None = None
    endpoint: Endpoint | None = None
    max_new_tokens: Count | None = None
    threshold: float | None = None
    batch_rows: Count


class ZooJudge(Row):
    """A classifier of the package judgezoo; an answer complies whose score of harm is at least `threshold`."""

    kind: Literal["judgezoo"]
    judge: Text
    threshold: Annotated[float, Field(gt=0, le=1)]
    batch_rows: Count


Judge = Annotated[KeywordJudge | RubricJudge | ZooJudge, Field(discriminator="kind")]


def judging_models(judges: Iterable[KeywordJudge | RubricJudge | ZooJudge]) -> list[str]:
    """The models of the catalogue that judges ask, each once."""
    models = [judge.model for judge in judges if isinstance(judge, RubricJudge) and judge.model is not None]
    return list(dict.fromkeys(models))
