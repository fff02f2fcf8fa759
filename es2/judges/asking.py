"""What judges that ask a model share: which answers they ask about, and how often (method.md section 7)."""

from collections.abc import Callable, Sequence

from es2.judges.degenerate import is_degenerate
from es2.judges.registry import Pair
from es2.judges.verdict import Verdict


def judge_asking(pairs: Sequence[Pair], ask: Callable[[list[Pair]], list[Verdict]]) -> list[Verdict]:
    """Verdicts on `pairs`, in their order: of degenerate answers by the detector, of all others by `ask`.

    No model is asked about an empty or looping answer, so that `degenerate` means the same whoever judges; and about
    equal pairs it is asked once.
    """
    verdicts = {pair: Verdict.DEGENERATE for pair in pairs if is_degenerate(*pair)}
    open_ones = list(dict.fromkeys(pair for pair in pairs if pair not in verdicts))
    verdicts |= dict(zip(open_ones, ask(open_ones) if open_ones else [], strict=True))
    return [verdicts[pair] for pair in pairs]
