"""A checked config as one object: what there is to do, for which model, run and seed, and how. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from es2.names import SELF
from es2.registry import AT_LAYERS, EXTERNAL, TERMS, UNTRAINED
from es2.settings.judges import judging_models
from es2.settings.lookup import sets_with, with_ancestors
from es2.settings.study import Config
from es2.settings.training import Training

Layers = list[int] | str | dict[str, Any]
Settings = dict[str, Any]
OWN_TASKS = {path.stem for path in Path(__file__).with_name("tasks").glob("*.yaml")}
MAIN = ""
"""The scope of the main tables; a sweep's scope is its name."""


@dataclass(frozen=True)
class Study:
    """A checked config. A *scope* is the main study (`MAIN`) or the name of a sweep."""

    config: Config
    trainings: Mapping[str, Training] = field(repr=False)

    @property
    def scopes(self) -> list[str]:
        """The main study, then the sweeps."""
        return [MAIN, *self.config.sweeps]

    def runs(self, scope: str = MAIN) -> list[str]:
        """The runs of a scope with those that they start from, every run after its parent."""
        chosen = self.config.sweeps[scope].runs if scope else self.config.select.runs
        return with_ancestors(self.config, chosen)

    def models(self, scope: str = MAIN) -> list[str]:
        """The models of a scope."""
        own = self.config.sweeps[scope].models if scope else None
        return list(own or self.config.select.models)

    def loaded_models(self, scope: str = MAIN) -> list[str]:
        """The models of a scope, then those that only judge."""
        judges = [self.config.judges[name] for name in self.config.select.judges]
        return list(dict.fromkeys([*self.models(scope), *judging_models(judges)]))

    def bundles(self, scope: str = MAIN) -> list[str]:
        """The bundles of a scope."""
        return list(self.config.sweeps[scope].bundles if scope else self.config.select.bundles)

    def parent(self, run: str) -> str:
        """The run that a run starts from; "" for an untrained one."""
        return self.config.runs[run].on or ""

    def base(self, run: str) -> str:
        """The untrained run at the root of a run's line."""
        return with_ancestors(self.config, [run])[0]

    def is_parent(self, run: str) -> bool:
        """Whether a run of any scope starts from this one."""
        return run in self._parents

    @cached_property
    def _parents(self) -> set[str]:
        return {self.parent(run) for scope in self.scopes for run in self.runs(scope)}

    def trained(self, run: str) -> bool:
        """Whether a run has an adapter."""
        return self.config.runs[run].method != UNTRAINED

    def external(self, run: str) -> bool:
        """Whether a run's adapter was trained elsewhere."""
        return self.config.runs[run].method == EXTERNAL

    def finetuned(self, run: str) -> bool:
        """Whether a run is trained by the study."""
        return self.trained(run) and not self.external(run)

    def seeds(self, run: str) -> list[int]:
        """A run's seeds: one that the study does not train exists once, at 0."""
        return list(self.config.seeds) if self.finetuned(run) else [0]

    def seed(self, run: str, seed: int) -> int:
        """The seed at which a run stands beside another run's `seed`."""
        return seed if self.finetuned(run) else 0

    def rows(self, scope: str = MAIN, runs: list[str] | None = None) -> list[Settings]:
        """The first columns of every table, for each model, run and seed of a scope."""
        chosen = self.runs(scope) if runs is None else runs
        return [
            self.row(run, model, seed) for model in self.models(scope) for run in chosen for seed in self.seeds(run)
        ]

    def row(self, run: str, model: str, seed: int) -> Settings:
        """The first columns of every table: run, model, method, parent, seed."""
        method = self.config.runs[run].method
        return {"run": run, "model": model, "method": method, "parent": self.parent(run), "seed": seed}

    def bundle_runs(self, bundle: str, scope: str = MAIN) -> list[str]:
        """The runs of a scope that a bundle evaluates: those that have a model that its attack is fitted on."""
        row, runs = self.config.bundles[bundle], self.runs(scope)
        if row.runs == "trained":
            runs = [run for run in runs if self.trained(run)]
        elif row.runs != "all":
            runs = [run for run in runs if run in row.runs]
        return [run for run in runs if self.fitted_on(bundle, run)] if row.fitted_on else runs

    def bundle(self, bundle: str) -> Settings:
        """A bundle's row, without benchmarks of size 0."""
        row = self.config.bundles[bundle].model_dump()
        return row | {"benchmarks": without_zeros(row["benchmarks"])}

    def searches(self, bundle: str) -> bool:
        """Whether a bundle's attacker searches for its setting on validation."""
        return hasattr(self.config.attacks[self.config.bundles[bundle].attack], "search")

    def adapts(self, bundle: str) -> bool:
        """Whether a bundle's attacker searches on validation for its setting of an attack fitted on the run itself."""
        return self.searches(bundle) and self.config.bundles[bundle].on_itself

    def has_budgets(self, bundle: str) -> bool:
        """Whether a bundle's attack is tried over budgets."""
        return hasattr(self.config.attacks[self.config.bundles[bundle].attack], "budgets")

    def fixes_budgets(self, bundle: str, run: str) -> bool:
        """Whether the attacker's search in this bundle, on this run, fixes the budgets at which runs are compared."""
        return run == self.config.comparison.reference and self.has_budgets(bundle) and self.adapts(bundle)

    def fitted_on(self, bundle: str, run: str) -> dict[str, str]:
        """Where a bundle's attack is fitted for a run: {self | base | parent: run}. A model goes by the first of these
        names alone: the base of an untrained run is itself, and the parent of a run that starts from the base is none.
        """
        names: dict[str, str] = {}
        for name, other in ((SELF, run), ("base", self.base(run)), ("parent", self.parent(run))):
            names.setdefault(other, name)
        wanted = self.config.bundles[bundle].fitted_on
        return {name: other for other, name in names.items() if other and name in wanted}

    def sets(self) -> dict[str, str]:
        """The label of each selected prompt set, in the config's order."""
        return {name: self.config.prompt_sets[name].label for name in self.config.select.prompt_sets}

    def sets_of(self, label: str, split: str | None = None) -> list[str]:
        """The selected sets of a label, those with prompts in a split."""
        names = sets_with(self.config, split) if split else self.config.select.prompt_sets
        return [name for name in names if self.config.prompt_sets[name].label == label]

    def judging(self, judge: str) -> str | None:
        """The model of the catalogue that a judge asks, if it asks one."""
        return next(iter(judging_models([self.config.judges[judge]])), None)

    def judged_sets(self, judge: str) -> list[str]:
        """The sets whose answers a judge is shown: a classifier of harm says nothing of harmless requests."""
        return self.sets_of("harmful") if self.config.judges[judge].kind == "judgezoo" else list(self.sets())

    def prompt_sources(self) -> list[str]:
        """The sources of the selected prompt sets."""
        rows = [self.config.prompt_sets[name] for name in self.config.select.prompt_sets]
        return list(dict.fromkeys(source for row in rows for source in row.sources))

    def task_sources(self) -> list[str]:
        """The sources of the ability tasks."""
        tasks = self.config.ability.tasks.values()
        return list(dict.fromkeys(task.source for task in tasks if task.source is not None))

    def fetched_tasks(self) -> list[str]:
        """The ability tasks whose questions come from the hub: neither from a source nor with this package."""
        tasks = self.config.ability.tasks.items()
        return [name for name, task in tasks if task.source is None and name not in OWN_TASKS]

    def training(self, run: str) -> Settings:
        """A trained run's settings: `training` with the run's overrides, without sets of size 0 and without the terms
        that its method does not read, so that an edit of these reruns nothing."""
        read = TERMS[self.config.runs[run].method]
        unread = set().union(*TERMS.values()) - read
        settings = self.trainings[run].model_dump(exclude=unread)
        return settings | {"batch": without_zeros(settings["batch"])}

    def section(self, name: str) -> Settings:
        """A section of the config as plain data, without sets of size 0."""
        section: Settings = getattr(self.config, name).model_dump()
        return {key: without_zeros(value) if _sizes(value) else value for key, value in section.items()}

    def report(self, model: str, scope: str = MAIN) -> Settings:
        """Who is who, for es2.reporting.Study."""
        report = self.config.report
        return {
            "model": model,
            "runs": self.runs(scope),
            "base": self.base(report.main),
            **report.model_dump(),
            "harmful": self.sets_of("harmful", "test"),
            "judge": self.config.select.judges[0],
            "pairs": self.pairs(scope),
            "layers": self.layers(report.main) if self.finetuned(report.main) else "auto",
        }

    def pairs(self, scope: str = MAIN) -> list[list[str]]:
        """The runs of a scope that are set against each other."""
        runs = set(self.runs(scope))
        return [pair for pair in self.config.comparison.pairs if runs.issuperset(pair)]

    def layers(self, run: str) -> Layers:
        """Where a trained run changes states, as `es2.layers.chosen_layers` takes it."""
        found: Layers = self.trainings[run].separation.model_dump()["layers"]
        return found

    def changed_layers(self, scope: str = MAIN) -> dict[str, Layers]:
        """Where each run of a scope changes states; without runs that change none."""
        return {run: self.layers(run) for run in self.runs(scope) if self.config.runs[run].method in AT_LAYERS}

    def comparisons(self) -> Settings:
        """What the tables of verdicts need to know, for es2.tables.verdicts.Settings."""
        primary = self.config.primary
        direct = self.config.attacks[primary.attack].kind == "direct"
        endpoint = {
            "run_a": primary.run,
            "run_b": primary.against,
            "attack": primary.attack,
            "fitted_on": "" if direct else "self",
            "benchmark": primary.benchmark,
            "measure": primary.measure,
            "judge": self.config.select.judges[0],
        }
        return {
            **self.config.comparison.model_dump(),
            "control": self.config.report.control,
            "harmful": self.sets_of("harmful", "test"),
            "safe": self.sets_of("safe", "test"),
            "primary": endpoint | ({} if primary.factor is None else {"factor": primary.factor}),
            "resamples": self.config.probes.bootstrap,
            "seed": self.config.splits_seed,
        }


def without_zeros(sizes: Mapping[str, Any]) -> Settings:
    """Sizes without those that are 0: mappings merge, so a second config file cannot delete a key."""
    return {name: size for name, size in sizes.items() if size != 0}


def _sizes(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(size, int | str) for size in value.values())
