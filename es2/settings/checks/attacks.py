"""Rows of attacks, the bundles that evaluate them, and the bundles that choose between trials."""

from es2.errors import UserError
from es2.names import SELF
from es2.registry import UNTRAINED
from es2.settings.checks.names import check_list, check_sizes, check_window, need
from es2.settings.evaluation import (
    AblationAttack,
    AblationSearch,
    BudgetAttack,
    BudgetChoice,
    Bundle,
    DirectAttack,
    OwnAttack,
    PrefillAttack,
    PublishedAttack,
    SampledAttack,
    ScavAttack,
    SoftPromptAttack,
    ValidationAnswers,
)
from es2.settings.lookup import used_bundles
from es2.settings.study import Config

SEARCHED = (AblationAttack, SoftPromptAttack, PrefillAttack)
"""Attacks without a budget whose setting is searched for on validation."""
UNFITTED = (DirectAttack, ValidationAnswers, PrefillAttack, SampledAttack, PublishedAttack)
"""Attacks with nothing that is fitted on a model."""
TRIED = (ValidationAnswers, BudgetAttack, *SEARCHED)
"""What may stand without test prompts: answers to validation prompts, and searches on them."""


def check_attacks(config: Config) -> None:
    """Every attack has a free name, budgets and windows in order, and probes that are fitted."""
    known = config.probes.c
    wanted = [("probes.metric_c", config.probes.metric_c)]
    for name, attack in config.attacks.items():
        where = f"attacks.{name}"
        if "_" in name and name.rpartition("_")[2] in ("random", "shuffled", "single"):
            raise UserError(f"{where}: an attack's name with that ending is its control's in the tables; rename it")
        if isinstance(attack, DirectAttack) != (name == "direct"):
            raise UserError(f"{where}: the name direct is that of the direct request (kind: direct); rename it")
        if isinstance(attack, ScavAttack):
            wanted.append((f"{where}.c", attack.c))
        if isinstance(attack, PublishedAttack):
            need(f"{where}.source", "source", attack.source, config.sources)
        if isinstance(attack, BudgetAttack):
            _check_budgets(where, attack)
        search = getattr(attack, "search", None)
        if isinstance(search, BudgetChoice):
            wanted += [(f"{where}.search.c", strength) for strength in search.c]
            for window in search.windows:
                check_window(f"{where}.search.windows", window)
        if isinstance(search, AblationSearch):
            check_window(f"{where}.search.window", search.window)
    for where, strength in wanted:
        if strength not in known:
            raise UserError(f"{where}: no probe is fitted with C = {strength:g}; add it to probes.c")


def _check_budgets(where: str, attack: BudgetAttack) -> None:
    if sorted(set(attack.budgets)) != attack.budgets:
        raise UserError(f"{where}.budgets: they do not ascend; sort them, each once")
    for budget in attack.control_budgets:
        if budget not in attack.budgets:
            raise UserError(f"{where}.control_budgets: {budget:g} is none of the budgets; add it")


def check_bundle(config: Config, name: str, bundle: Bundle) -> None:
    """A bundle names what exists; one in use is fitted where its attack can be, on prompts that there are."""
    where = f"bundles.{name}"
    if "." in name:
        raise UserError(f"{where}: a bundle's name parts file names, so it has no point; rename it")
    need(f"{where}.attack", "attack", bundle.attack, config.attacks)
    if not isinstance(bundle.runs, str):
        check_list(f"{where}.runs", "run", bundle.runs, config.runs)
    for benchmark in bundle.benchmarks:
        need(f"{where}.benchmarks", "prompt set", benchmark, config.prompt_sets)
    if name not in used_bundles(config):
        return
    attack = config.attacks[bundle.attack]
    if isinstance(attack, UNFITTED):
        if bundle.fitted_on or bundle.controls:
            raise UserError(f"{where}: the attack {attack.kind} has neither fitted_on nor controls; take them away")
    elif isinstance(attack, SoftPromptAttack):
        if bundle.controls and bundle.controls.shuffled:
            raise UserError(f"{where}.controls.shuffled: a soft prompt has random controls alone; set it to 0")
    elif isinstance(attack, OwnAttack):
        if bundle.fitted_on and SELF not in bundle.fitted_on:
            raise UserError(f"{where}.fitted_on: what an attack file fits, it fits on the run itself; add self")
    else:
        if bundle.controls is None:
            raise UserError(f"{where}.controls: this key is missing; say how many draws (0 for none)")
        if not bundle.fitted_on:
            raise UserError(f"{where}.fitted_on: it is empty; say where the attack is fitted")
        drawn = bundle.controls.random or bundle.controls.shuffled
        if isinstance(attack, ScavAttack) and drawn and SELF not in bundle.fitted_on:
            raise UserError(f"{where}.controls: they replay what is fitted on the run itself; add self to fitted_on")
    if isinstance(attack, BudgetAttack | AblationAttack | SoftPromptAttack) and len(bundle.fitted_on) > 1:
        raise UserError(
            f"{where}.fitted_on: an attack that searches for its setting is fitted on one model; keep one name, and "
            "give each other one a bundle of its own"
        )
    check_sizes(config, f"{where}.benchmarks", bundle.benchmarks, "test")
    # A search alone, and answers to validation prompts, need no test prompts.
    if not any(bundle.benchmarks.values()) and not isinstance(attack, TRIED):
        raise UserError(f"{where}.benchmarks: every set has size 0; give one some prompts")


def check_trials(config: Config) -> None:
    """Every sweep of trials has the two bundles that choose between them, and perhaps searches of other attacks."""
    check_list("trials.sweeps", "sweep", config.trials.sweeps, config.sweeps)
    for sweep in config.trials.sweeps:
        for run in config.sweeps[sweep].runs:
            if config.runs[run].method == UNTRAINED:
                raise UserError(f"sweeps.{sweep}.runs: {run!r} is untrained and so no trial; take it away")
        names = [config.bundles[name].attack for name in config.sweeps[sweep].bundles]
        attacks = [config.attacks[name] for name in names]
        first = [sum(isinstance(attack, kind) for attack in attacks) for kind in (ValidationAnswers, BudgetAttack)]
        if first != [1, 1] or len(set(names)) < len(names) or not all(isinstance(one, TRIED) for one in attacks):
            raise UserError(
                f"sweeps.{sweep}.bundles: trials are chosen by two bundles, one of the kind validation and one over "
                "budgets; name one of each, and beside them only attacks of the kinds ablation, soft_prompt and "
                "prefill, each once"
            )
        for name in config.sweeps[sweep].bundles:
            if not config.bundles[name].on_itself:
                raise UserError(
                    f"sweeps.{sweep}.bundles: {name!r} is fitted on another model, and trials are chosen by attacks "
                    "that are fitted on them; take it away"
                )
