"""Names of the config and the module that each means; a module is imported only when its name is asked for.

Torch-free, so that the workflow can read the tables. A job's fingerprint takes the one module that its name
means and leaves this file out: a new entry reruns nothing.
"""

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from es2.errors import UserError

UNTRAINED = "base"
EXTERNAL = "external"
METHODS = {
    "refusal_sft": "es2.methods.refusal_sft:RefusalSFT",
    "hold": "es2.methods.separation:Hold",
    "es2": "es2.methods.separation:Separation",
    "es2_mean": "es2.methods.mean_position:MeanPosition",
    "adversarial": "es2.methods.adversarial:Adversarial",
    "es2_adversarial": "es2.methods.adversarial:EsAdversarial",
    "circuit_breakers": "es2.methods.rerouting:CircuitBreakers",
    "triplet": "es2.methods.rerouting:Triplet",
    "random_target": "es2.methods.rerouting:RandomTarget",
}
TERMS = {
    "refusal_sft": {"kl", "sft"},
    "hold": {"kl", "hold"},
    "es2": {"kl", "hold"},
    "es2_mean": {"kl", "hold"},
    "adversarial": {"kl", "hold", "adversarial"},
    "es2_adversarial": {"kl", "hold", "adversarial"},
    "circuit_breakers": {"rerouting"},
    "triplet": {"kl", "rerouting", "triplet"},
    "random_target": {"rerouting"},
}
"""The sections of `training` that a method reads beside what all read (`separation` names the layers)."""
AT_LAYERS = frozenset({"es2", "es2_mean", "es2_adversarial", "circuit_breakers", "triplet", "random_target"})
"""Methods that change states at the layers of `separation`; the others at most hold them there."""
ATTACKS = {
    "direct": "es2.attacks.direct",
    "validation": "es2.attacks.validation",
    "scav": "es2.attacks.scav",
    "scav_adaptive": "es2.attacks.scav_adaptive",
    "addition": "es2.attacks.addition",
    "ablation": "es2.attacks.ablation",
    "prefill": "es2.attacks.prefill",
    "soft_prompt": "es2.attacks.soft_prompt",
    "sampled": "es2.attacks.sampled",
    "published": "es2.attacks.published",
    "file": "es2.attacks.own",
}
JUDGES = {"keyword": "es2.judges.keyword", "rubric": "es2.judges.rubric", "judgezoo": "es2.judges.zoo"}
"""Each module has VERSION (rises when verdicts may change), and either judge(prompt, answer) -> Verdict or, where a row
of the config has options, load(row, model) -> judge_all. Nothing heavy is loaded before the first answer is judged."""


def method(name: str) -> Any:
    """The class of a training method (see es2.methods.base.Method)."""
    module, _, attribute = _entry("method", METHODS, name).partition(":")
    return getattr(import_module(module), attribute)


def attack(name: str) -> ModuleType:
    """The module of an attack kind (see es2.attacks.base.AttackModule)."""
    return import_module(_entry("attack", ATTACKS, name))


def _entry(what: str, table: Mapping[str, str], name: str) -> str:
    if name not in table:
        raise UserError(f"{what} {name!r} is not known; {suggest(name, table)}")
    return table[name]


def suggest(name: object, known: Iterable[str]) -> str:
    """What to write instead of an unknown name: the near ones, or all of them where none is near."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(names)}" if names else "there are none yet"
