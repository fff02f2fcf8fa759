"""What the rows of a config say about each other: every name means something, and the study can be run.

Each check raises UserError with one sentence for the first mistake it finds.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from es2.errors import UserError
from es2.registry import EXTERNAL, METHODS, TERMS, UNTRAINED, suggest
from es2.settings.data import BundledSource, FileSource, FolderModel, Source, model_sources
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
    ScavAttack,
    SoftPromptAttack,
    ValidationAnswers,
)
from es2.settings.judges import judging_models
from es2.settings.study import Config
from es2.settings.training import Training

BUNDLED = Path(__file__).parents[1] / "prompts" / "bundled"


def need(where: str, what: str, name: str, known: Collection[str]) -> None:
    """Raise unless `name` is known."""
    if name not in known:
        raise UserError(f"{where}: there is no {what} {name!r}; {suggest(name, known)}")


def check(config: Config) -> None:
    """Check everything that needs more than one row, but for the runs' training (see `check_training`)."""
    _check_selection(config)
    _check_data(config)
    _check_runs(config)
    _check_attacks(config)
    for name, bundle in config.bundles.items():
        _check_bundle(config, name, bundle)
    for name, sweep in config.sweeps.items():
        _check_list(f"sweeps.{name}.runs", "run", sweep.runs, config.runs)
        _check_list(f"sweeps.{name}.bundles", "bundle", sweep.bundles, config.bundles)
    _check_trials(config)
    _check_evaluation(config)
    _check_report(config)


def _check_list(where: str, what: str, names: Iterable[str], known: Collection[str]) -> None:
    seen: set[str] = set()
    for name in names:
        need(where, what, name, known)
        if name in seen:
            raise UserError(f"{where}: {name!r} stands there twice; take one away")
        seen.add(name)


def _check_selection(config: Config) -> None:
    select = config.select
    lists: tuple[tuple[str, str, list[str], Mapping[str, object]], ...] = (
        ("models", "model", select.models, config.models),
        ("runs", "run", select.runs, config.runs),
        ("prompt_sets", "prompt set", select.prompt_sets, config.prompt_sets),
        ("bundles", "bundle", select.bundles, config.bundles),
        ("judges", "judge", select.judges, config.judges),
    )
    for key, what, names, known in lists:
        _check_list(f"select.{key}", what, names, known)
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError("seeds: a seed stands there twice; take one away")
    for label in ("harmful", "safe"):
        for split in ("attack", "validation", "test"):
            if not any(config.prompt_sets[name].label == label for name in sets_with(config, split)):
                raise UserError(
                    f"select.prompt_sets: no {label} set has a split {split}, which the probes need; "
                    "select one, or give one of its prompts to that split"
                )


def sets_with(config: Config, split: str) -> list[str]:
    """Selected sets that have prompts in a split."""
    chosen = config.select.prompt_sets
    return [name for name in chosen if _splits(config, name).get(split, 0) != 0]


def _splits(config: Config, name: str) -> dict[str, int | str]:
    return dict(config.prompt_sets[name].splits.items())


def _check_data(config: Config) -> None:
    for name, model in config.models.items():
        for source in model_sources(model):
            need(f"models.{name}", "source", source, config.sources)
    for name, row in config.prompt_sets.items():
        _check_list(f"prompt_sets.{name}.sources", "source", row.sources, config.sources)
        if list(row.splits.values()).count("rest") > 1:
            raise UserError(f"prompt_sets.{name}.splits: two splits cannot both have the rest; number one")
        if not any(row.splits.values()):
            raise UserError(f"prompt_sets.{name}.splits: every split is empty; give one some prompts")
    for name, task in config.ability.tasks.items():
        if task.source is not None:
            need(f"ability.tasks.{name}.source", "source", task.source, config.sources)


def own_file(source: Source) -> Path | None:
    """The file of the package's or the user's that a source is a copy of, if it is one."""
    if isinstance(source, BundledSource):
        return BUNDLED / source.file
    return Path(source.path).expanduser() if isinstance(source, FileSource) else None


def check_paths(config: Config) -> None:
    """Raise for the first file or folder on this machine that the config names and that is not there."""
    for name, source in config.sources.items():
        file = own_file(source)
        if file is not None and not file.is_file():
            key, value = ("file", file.name) if isinstance(source, BundledSource) else ("path", str(file))
            known = sorted(path.name for path in BUNDLED.iterdir() if path.is_file())
            hint = suggest(value, known) if key == "file" else "correct the path"
            raise UserError(f"sources.{name}.{key}: there is no file {value}; {hint}")
    for bundle in used_bundles(config):
        attack = config.attacks[config.bundles[bundle].attack]
        if isinstance(attack, OwnAttack) and not Path(attack.path).is_file():
            where = f"attacks.{config.bundles[bundle].attack}.path"
            raise UserError(f"{where}: there is no file {attack.path}; correct the path")
    judges = [config.judges[name] for name in config.select.judges]
    for name in [*config.select.models, *judging_models(judges)]:
        model = config.models[name]
        if isinstance(model, FolderModel) and not Path(model.path).expanduser().is_dir():
            raise UserError(f"models.{name}.path: there is no folder {model.path}; correct the path")


def _check_runs(config: Config) -> None:
    for name, run in config.runs.items():
        where = f"runs.{name}"
        need(f"{where}.method", "method", run.method, [UNTRAINED, EXTERNAL, *METHODS])
        if (run.method == EXTERNAL) != (run.adapter is not None):
            raise UserError(f"{where}.adapter: the method {EXTERNAL} needs this key and no other has it; mend the row")
        if run.adapter is not None:
            need(f"{where}.adapter.config", "source", run.adapter.config, config.sources)
            need(f"{where}.adapter.weights", "source", run.adapter.weights, config.sources)
            if run.training:
                raise UserError(f"{where}.training: an external run is not trained; take this key away")
        if run.method == UNTRAINED and (run.on is not None or run.training):
            raise UserError(f"{where}: an untrained run has neither `on` nor `training`; take them away")
        if run.method != UNTRAINED and run.on is None:
            raise UserError(f"{where}.on: this key is missing; name the run that training starts from")
        if run.on is not None:
            need(f"{where}.on", "run", run.on, config.runs)
    for name in config.runs:
        chain, at = [name], config.runs[name].on
        while at is not None:
            if at in chain:
                circle = " -> ".join([*chain[chain.index(at) :], at])
                raise UserError(f"runs.{at}.on: the runs form a circle ({circle}); let one start from a base")
            chain.append(at)
            at = config.runs[at].on


def with_ancestors(config: Config, runs: Iterable[str]) -> list[str]:
    """`runs` in their order, each after the runs that it starts from."""
    found: dict[str, None] = {}
    for name in runs:
        chain, at = [name], config.runs[name].on
        while at is not None:
            chain.append(at)
            at = config.runs[at].on
        found.update(dict.fromkeys(reversed(chain)))
    return list(found)


def check_training(config: Config, run: str, training: Training) -> None:
    """Check a trained run's merged settings."""
    where, method = f"runs.{run}", config.runs[run].method
    weight = training.separation.weight
    if method in ("hold", "adversarial") and weight != 0:
        raise UserError(
            f"{where}.training.separation.weight: it is {weight:g}, and `{method}` is a control without "
            "separation; set it to 0"
        )
    if method in ("es2", "es2_adversarial") and weight == 0:
        control = "hold" if method == "es2" else "adversarial"
        raise UserError(
            f"{where}.training.separation.weight: it is 0, which is the method {control}; give a weight above 0"
        )
    if method == "refusal_sft":
        need(f"{where}.training.sft.refusals", "source", training.sft.refusals, config.sources)
    adversarial = training.adversarial
    if "adversarial" in TERMS.get(method, ()) and training.checkpoint_every % adversarial.refit_every:
        raise UserError(
            f"{where}.training.checkpoint_every: it is no multiple of adversarial.refit_every "
            f"({adversarial.refit_every}), so that a resumed run would not be the undisturbed one; make it one"
        )
    for name, size in training.batch.items():
        need(f"{where}.training.batch", "prompt set", name, config.prompt_sets)
        if size and name not in sets_with(config, "defence"):
            raise UserError(
                f"{where}.training.batch.{name}: this set is not selected or has no defence split; "
                "select it, or set it to 0 to leave it out"
            )
    labels = {config.prompt_sets[name].label for name, size in training.batch.items() if size}
    for label in ("harmful", "safe"):
        if label not in labels:
            raise UserError(f"{where}.training.batch: a step has no {label} prompts; give a {label} set a size")


def _check_attacks(config: Config) -> None:
    known = config.probes.c
    wanted = [("probes.metric_c", config.probes.metric_c)]
    for name, attack in config.attacks.items():
        where = f"attacks.{name}"
        if "_" in name and name.rpartition("_")[2] in ("random", "shuffled"):
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
                _check_window(f"{where}.search.windows", window)
        if isinstance(search, AblationSearch):
            _check_window(f"{where}.search.window", search.window)
    for where, strength in wanted:
        if strength not in known:
            raise UserError(f"{where}: no probe is fitted with C = {strength:g}; add it to probes.c")


def _check_window(where: str, window: list[float]) -> None:
    low, high = window
    if low > high:
        raise UserError(f"{where}: [{low:g}, {high:g}] ends before it begins")


def _check_budgets(where: str, attack: BudgetAttack) -> None:
    if sorted(set(attack.budgets)) != attack.budgets:
        raise UserError(f"{where}.budgets: they do not ascend; sort them, each once")
    for budget in attack.control_budgets:
        if budget not in attack.budgets:
            raise UserError(f"{where}.control_budgets: {budget:g} is none of the budgets; add it")


def _check_bundle(config: Config, name: str, bundle: Bundle) -> None:
    where = f"bundles.{name}"
    if "." in name:
        raise UserError(f"{where}: a bundle's name parts file names, so it has no point; rename it")
    need(f"{where}.attack", "attack", bundle.attack, config.attacks)
    if not isinstance(bundle.runs, str):
        _check_list(f"{where}.runs", "run", bundle.runs, config.runs)
    for benchmark in bundle.benchmarks:
        need(f"{where}.benchmarks", "prompt set", benchmark, config.prompt_sets)
    if name not in used_bundles(config):
        return
    attack = config.attacks[bundle.attack]
    if isinstance(attack, DirectAttack | ValidationAnswers | PrefillAttack | SoftPromptAttack | PublishedAttack):
        if bundle.fitted_on or bundle.controls:
            raise UserError(f"{where}: the attack {attack.kind} has neither fitted_on nor controls; take them away")
    elif not isinstance(attack, OwnAttack):
        if bundle.controls is None:
            raise UserError(f"{where}.controls: this key is missing; say how many draws (0 for none)")
        if not bundle.fitted_on:
            raise UserError(f"{where}.fitted_on: it is empty; say where the attack is fitted")
    if isinstance(attack, BudgetAttack | AblationAttack) and bundle.fitted_on != ["self"]:
        raise UserError(f"{where}.fitted_on: an adaptive attack is fitted on the run itself; write [self]")
    _check_sizes(config, f"{where}.benchmarks", bundle.benchmarks, "test")
    # A search alone, and answers to validation prompts, need no test prompts.
    if not any(bundle.benchmarks.values()) and not isinstance(attack, BudgetAttack | ValidationAnswers):
        raise UserError(f"{where}.benchmarks: every set has size 0; give one some prompts")


def used_bundles(config: Config) -> list[str]:
    """Bundles that the study or one of its sweeps takes."""
    swept = [name for sweep in config.sweeps.values() for name in sweep.bundles]
    return list(dict.fromkeys([*config.select.bundles, *swept]))


def _check_sizes(config: Config, where: str, sizes: Mapping[str, int | str], split: str) -> None:
    """Every set with a size is selected, has that split, and has that many prompts where its number is known."""
    for name, size in sizes.items():
        need(where, "prompt set", name, config.prompt_sets)
        if size == 0:
            continue
        if name not in sets_with(config, split):
            raise UserError(
                f"{where}.{name}: this set is not selected or has no split {split}; "
                "select it, or set it to 0 to leave it out"
            )
        held = _splits(config, name)[split]
        if isinstance(held, int) and isinstance(size, int) and size > held:
            raise UserError(f"{where}.{name}: {size} prompts of {held} in split {split}; ask for fewer")


def _check_trials(config: Config) -> None:
    sweep = config.trials.sweep
    need("trials.sweep", "sweep", sweep, config.sweeps)
    attacks = [config.attacks[config.bundles[name].attack] for name in config.sweeps[sweep].bundles]
    kinds = [isinstance(attack, BudgetAttack) for attack in attacks]
    if sorted(kinds) != [False, True] or not any(isinstance(attack, ValidationAnswers) for attack in attacks):
        raise UserError(
            f"sweeps.{sweep}.bundles: trials are chosen by two bundles, one of the kind validation and one over "
            "budgets; name these"
        )


def _check_evaluation(config: Config) -> None:
    reference = config.reference
    for key, sizes, split, label in (
        ("held_out", reference.held_out, "validation", "safe"),
        ("drift", reference.drift, "test", "safe"),
        ("targets", reference.targets, "attack", "harmful"),
    ):
        where = f"reference.{key}"
        _check_sizes(config, where, sizes, split)
        for name, size in sizes.items():
            if size and config.prompt_sets[name].label != label:
                what = (
                    "drift is read on harmless prompts" if label == "safe" else "attacks aim at answers to harmful ones"
                )
                raise UserError(f"{where}.{name}: {what}; name a {label} set")
        if label == "safe" and not any(sizes.values()):
            raise UserError(f"{where}: every set has size 0; give a safe one some prompts")


def _check_report(config: Config) -> None:
    report, primary = config.report, config.primary
    for key in ("parent", "control"):
        need(f"report.{key}", "run", getattr(report, key), config.runs)
    for key in ("plain", "look_dangerous"):
        need(f"report.{key}", "selected prompt set", getattr(report, key), config.select.prompt_sets)
    selected = with_ancestors(config, config.select.runs)
    need("report.main", "selected run", report.main, selected)
    need("primary.run", "selected run", primary.run, selected)
    need("primary.against", "selected run", primary.against, selected)
    need("primary.attack", "attack", primary.attack, config.attacks)
    need("primary.benchmark", "benchmark", primary.benchmark, ["pooled", *config.select.prompt_sets])
    comparison = config.comparison
    need("comparison.reference", "selected run", comparison.reference, selected)
    for run in (name for pair in comparison.pairs for name in pair):
        need("comparison.pairs", "run", run, config.runs)
    if primary.factor is not None and primary.factor not in comparison.factors:
        raise UserError(f"primary.factor: {primary.factor:g} is none of comparison.factors; add it there")
    _check_list("release", "selected run", config.release, selected)
    for name in config.release:
        if config.runs[name].method == UNTRAINED:
            raise UserError(f"release: {name!r} is untrained and has no adapter to merge; take it away")
