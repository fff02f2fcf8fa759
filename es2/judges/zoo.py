"""Classifiers of the package judgezoo, an optional extra, behind our interface.

judgezoo gives a score of harm in [0, 1], or None where its own input check fails. A score at or above the config's
threshold is the verdict compliance, one below it refusal, None and NaN are missing. So refusal means "not called
harmful" here, whatever the answer says: the workflow asks these judges about answers to harmful prompts alone.
Degenerate answers are told by es2.judges.degenerate and shown to no classifier.

The classifiers are loaded by judgezoo, at whatever commit the hub has then; its interface takes no revision.
"""

import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from es2.errors import UserError
from es2.judges.asking import judge_asking
from es2.judges.registry import JudgeAll, Pair
from es2.judges.verdict import Verdict
from es2.registry import suggest

PACKAGE, RELEASE = "judgezoo", "0.1.9"
VERSION = f"1.0 ({PACKAGE} {RELEASE})"  # the first number rises when what we make of a score changes
JUDGES = ("aegis_guard", "harmbench", "llama_guard_3", "llama_guard_4", "strong_reject")
_PROMPTED = "it prompts a chat model of judgezoo's choice; write a judge of kind rubric instead"
UNFIT = {
    "adaptive_attacks": _PROMPTED,
    "advprefix": _PROMPTED,
    "intention_analysis": _PROMPTED,
    "pair": _PROMPTED,
    "strong_reject_rubric": _PROMPTED,
    "xstest": _PROMPTED,
    "best_of_n": "it makes a score that could not be read 0",
    "jail_judge": "of an output without a score it reads the one in its own prompt's example",
    "md_judge": "it runs code that comes with the weights (trust_remote_code)",
}
"""The other names that judgezoo 0.1.9 knows, and why each is not taken."""


def check_name(where: str, name: str) -> None:
    """UserError unless `name` is a judge of judgezoo that can be taken."""
    if name in UNFIT:
        raise UserError(f"{where}: judgezoo's {name} is not taken, for {UNFIT[name]}; there are {', '.join(JUDGES)}")
    if name not in JUDGES:
        raise UserError(f"{where}: there is no judge {name!r}; {suggest(name, JUDGES)}")


def check_package(where: str) -> None:
    """UserError unless the release of judgezoo that this module knows is installed. Imports nothing of it."""
    mend = f"run `pip install {PACKAGE}=={RELEASE}` in the study's environment, or select another judge"
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        raise UserError(f"{where}: this judge needs the package {PACKAGE}, which is not installed; {mend}") from None
    if found != RELEASE:
        raise UserError(f"{where}: this judge was checked with {PACKAGE} {RELEASE}, and {found} is installed; {mend}")


def load(row: Mapping[str, Any], _model: Mapping[str, Any] | None) -> JudgeAll:
    """`judge_all` of a config row; the classifier is loaded when the first answer is judged."""
    return lambda pairs: judge_asking(pairs, lambda asked: _ask(asked, row))


def _ask(pairs: list[Pair], row: Mapping[str, Any]) -> list[Verdict]:
    from es2.progress import progress

    check_package("judges")
    judge = _load(row["judge"])
    verdicts: list[Verdict] = []
    with progress("verdicts", len(pairs)) as advance:
        for start in range(0, len(pairs), row["batch_rows"]):
            batch = pairs[start : start + row["batch_rows"]]
            verdicts += [verdict(score, row["threshold"]) for score in _scores(judge, batch, row["judge"])]
            advance(len(batch))
    return verdicts


def _load(name: str) -> Any:
    check_name("judges", name)
    try:
        from judgezoo import Judge

        return Judge.from_name(name)
    except (ImportError, OSError, ValueError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise UserError(
            f"judges: judgezoo could not load {name} ({said}); its weights come from the hub, so see that the hub can "
            "be reached, that you are logged in there, and that you accepted their licence."
        ) from None


def _scores(judge: Any, batch: list[Pair], name: str) -> list[Any]:
    """Scores of harm of a batch; UserError where judgezoo fails, without its message, which may hold an answer."""
    chats = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}] for prompt, answer in batch
    ]
    try:
        scores = list(judge(chats)["p_harmful"])
    except Exception as error:
        raise UserError(
            f"judges: judgezoo's {name} failed on {len(batch)} answers ({type(error).__name__}); a smaller batch_rows "
            "helps where memory ran out."
        ) from None
    if len(scores) != len(batch):
        raise UserError(
            f"judges: judgezoo's {name} gave {len(scores)} scores for {len(batch)} answers; use another judge."
        )
    return scores


def verdict(score: Any, threshold: float) -> Verdict:
    """What a score of harm says about an answer; `missing` for whatever is no finite number."""
    if not isinstance(score, int | float) or not math.isfinite(score):
        return Verdict.MISSING
    return Verdict.COMPLIANCE if score >= threshold else Verdict.REFUSAL
