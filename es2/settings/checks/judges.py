"""What the rows of judges must say beyond their form, and what they need on this machine.

Each check raises UserError with one sentence for the first mistake it finds.
"""

import re

from es2.errors import UserError
from es2.judges import zoo
from es2.judges.endpoint import read_key
from es2.settings.checks.names import need
from es2.settings.judges import Endpoint, RubricJudge, ZooJudge
from es2.settings.study import Config


def check_judges(config: Config) -> None:
    """Check the rows of all judges, and which of the selected ones stands first."""
    for name, judge in config.judges.items():
        where = f"judges.{name}"
        if "." in name:
            raise UserError(f"{where}: a judge's name parts file names, so it has no point; rename it")
        if isinstance(judge, RubricJudge):
            _check_rubric(config, where, judge)
        elif isinstance(judge, ZooJudge):
            zoo.check_name(f"{where}.judge", judge.judge)
    first = config.select.judges[0]
    if (kind := config.judges[first].kind) != "keyword":
        raise UserError(
            f"select.judges: {first!r} of kind {kind} stands first, and the first one judges every step of an adaptive "
            "attacker's search, which only a keyword judge can; put that one first"
        )


def _check_rubric(config: Config, where: str, judge: RubricJudge) -> None:
    if judge.model is not None and judge.endpoint is not None:
        raise UserError(f"{where}: it has both a model and an endpoint; take one of them away")
    if judge.model is None and judge.endpoint is None:
        raise UserError(f"{where}: it has neither a model nor an endpoint; name the one that reads the rubric")
    if (judge.max_new_tokens is None) == (judge.threshold is None):
        raise UserError(f"{where}: it takes either max_new_tokens, for words to read, or threshold, to hold odds to")
    if judge.threshold is not None and judge.endpoint is not None:
        raise UserError(f"{where}: an endpoint tells no odds; give max_new_tokens in place of the threshold")
    if judge.endpoint is not None:
        _check_endpoint(f"{where}.endpoint", judge.endpoint)
    if judge.model is not None:
        need(f"{where}.model", "model", judge.model, config.models)


def _check_endpoint(where: str, endpoint: Endpoint) -> None:
    """The sentences leave out what stands there: it may be a key, or hold one."""
    if not re.fullmatch(r"https?://[^\s@?#]+", endpoint.url):
        raise UserError(
            f"{where}.url: it is no address that begins with http:// or https:// and holds neither a name, a password "
            "nor a query; correct it"
        )
    if endpoint.key_variable is not None and not endpoint.key_variable.isidentifier():
        raise UserError(
            f"{where}.key_variable: it is no name of an environment variable; name the one that holds the key, and "
            "write the key itself in no config"
        )


def check_judges_here(config: Config) -> None:
    """Raise for the first package or key that a selected judge needs and this machine lacks."""
    for name in config.select.judges:
        judge = config.judges[name]
        if isinstance(judge, ZooJudge):
            zoo.check_package(f"judges.{name}")
        if isinstance(judge, RubricJudge) and judge.endpoint is not None and judge.endpoint.key_variable is not None:
            read_key(judge.endpoint.key_variable)
