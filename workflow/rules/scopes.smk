"""Look-ups about a scope, the main study or a sweep: its evaluation jobs, its tables and figures, its settings."""


def evaluated(scope: str) -> list[tuple[dict, str]]:
    """The evaluation jobs of a scope: each run's row with a bundle."""
    return [
        (row, bundle) for bundle in study.bundles(scope) for row in study.rows(scope, study.bundle_runs(bundle, scope))
    ]


def answers(scope: str) -> list[str]:
    """All answer files of a scope."""
    return [at(row, f"answers/{bundle}.jsonl") for row, bundle in evaluated(scope)]


def verdicts(scope: str) -> list[str]:
    """All verdict tables of a scope."""
    judges = study.config.select.judges
    return [at(row, f"verdicts/{bundle}.{judge}.csv") for row, bundle in evaluated(scope) for judge in judges]


def searched(scope: str) -> list[tuple[dict, str]]:
    """The evaluation jobs in which the attacker searched for its setting."""
    return [(row, bundle) for row, bundle in evaluated(scope) if study.searches(bundle)]


def adapted(scope: str) -> list[tuple[dict, str]]:
    """Of these, those of an attack that is fitted on the run itself."""
    return [(row, bundle) for row, bundle in searched(scope) if study.adapts(bundle)]


def comparing(scope: str) -> list[tuple[dict, str]]:
    """Of these, those that fix the budgets at which runs are compared."""
    return [(row, bundle) for row, bundle in adapted(scope) if study.fixes_budgets(bundle, row["run"])]


def over_budgets(scope: str) -> list[tuple[dict, str]]:
    """The searches of trained runs, and of the study's parent, under attacks over budgets."""
    jobs = [(row, bundle) for row, bundle in adapted(scope) if study.has_budgets(bundle)]
    return [(row, bundle) for row, bundle in jobs if row["parent"] or row["run"] == study.config.report.parent]


def searchers(jobs: list[tuple[dict, str]]) -> list[dict]:
    """Whose search each evaluation job's is: the row of its run, with its attack and the models that it is fitted on."""
    return [
        row | {"attack": study.config.bundles[bundle].attack, "fitted_on": list(study.fitted_on(bundle, row["run"]))}
        for row, bundle in jobs
    ]


def search_tables(jobs: list[tuple[dict, str]]) -> list[str]:
    """The search tables of evaluation jobs."""
    return [at(row, f"answers/{bundle}.search.csv") for row, bundle in jobs]


def benchmark_files(jobs: list[tuple[dict, str]]) -> list[str]:
    """What Snakemake wrote of the time and memory of evaluation jobs."""
    return [f"{RESULTS}/timings/generate_answers/{at(row, bundle).removeprefix(MODELS)}.tsv" for row, bundle in jobs]


def trial_searches(scope: str) -> list[tuple[dict, str]]:
    """Of a sweep of trials, the attacker's searches over budgets."""
    return [(row, bundle) for row, bundle in adapted(scope) if is_trial(row, scope) and study.has_budgets(bundle)]


def other_searches(scope: str) -> list[tuple[dict, str]]:
    """Of a sweep of trials, the searches of attacks without a budget, attack by attack in the same order."""
    return [(row, bundle) for row, bundle in adapted(scope) if is_trial(row, scope) and not study.has_budgets(bundle)]


def trial_answers(scope: str) -> list[tuple[dict, str]]:
    """Of a sweep of trials, the answers to validation prompts, in the same order."""
    return [(row, bundle) for row, bundle in evaluated(scope) if is_trial(row, scope) and not study.searches(bundle)]


def is_trial(row: dict, scope: str) -> bool:
    """Whether a row's run is named by a sweep of trials, not there as a parent alone."""
    return row["run"] in study.config.sweeps[scope].runs


def ablated(scope: str) -> list[tuple[dict, str]]:
    """The evaluation jobs that search for a direction to ablate, in trained runs and in what they start from."""
    kinds = {name: study.config.attacks[study.config.bundles[name].attack].kind for name in study.bundles(scope)}
    told = [(row, bundle) for row, bundle in adapted(scope) if kinds[bundle] == "ablation"]
    return [(row, bundle) for row, bundle in told if row["parent"] or row["run"] == study.config.report.parent]


def parent_row(row: dict) -> dict:
    """The row of the run that a row's run starts from; of an untrained run, its own."""
    run = row["parent"] or row["run"]
    return study.row(run, row["model"], study.seed(run, row["seed"]))


def sweep_outputs(sweep: str) -> list[str]:
    """The tables and figures of a sweep; those of trials tell what was tried on validation, and no more."""
    is_trials = sweep in TRIALS.sweeps
    tables, figures = (TRIAL_TABLES, TRIAL_FIGURES) if is_trials else (SWEEP_TABLES, SWEEP_FIGURES)
    if study.config.sweeps[sweep].ability:
        tables, figures = [*tables, "ability"], [*figures, "pareto"]
    if searched(sweep):
        tables = [*tables, "searches"]
    if study.pairs(sweep):
        tables, figures = [*tables, "rivals", "finals"], [*figures, "rivals"]
    if ablated(sweep):
        tables, figures = [*tables, "directions", "turning"], [*figures, "directions", "turning"]
    return [
        *(f"{RESULTS}/tables/{sweep}/{table}.csv" for table in tables),
        *(f"{RESULTS}/figures/{sweep}/{figure}.{model}.svg" for figure in figures for model in study.models(sweep)),
    ]


def settings_facts(scope: str) -> list[dict]:
    """The config's own settings, each with the run, model or attack that it belongs to."""
    whole = study.config.model_dump(exclude_none=True, include=SETTINGS)
    models = [
        {"model": name, "values": study.config.models[name].model_dump(exclude_none=True)}
        for name in study.loaded_models(scope)
    ]
    asked = {
        name: study.config.judges[name].model_dump(exclude_none=True, exclude={"kind"})
        for name in study.config.select.judges
    }
    judges = [{"values": {"judges": {name: options}}} for name, options in asked.items() if options]
    runs = [{**row, "values": study.training(row["run"])} for row in study.rows(scope) if is_finetuned(row)]
    attacks = [
        {"attack": name, "values": study.config.attacks[name].model_dump()}
        for name in dict.fromkeys(study.config.bundles[bundle].attack for bundle in study.bundles(scope))
    ]
    return [{"values": whole}, *models, *judges, *runs, *attacks]


def documents(scope: str) -> list[tuple[str, dict]]:
    """JSON files whose contents are settings, each with whose they are: manifests and chosen layers."""
    models = [
        (f"resources/models/{model}/manifest.json", {"model": model, "prefix": "manifest"})
        for model in study.loaded_models(scope)
    ]
    chosen = [(at(row, "layers.json"), {**row, "keys": ["layers", "rule"]}) for row in study.rows(scope)]
    return models + chosen


def card_settings(wildcards) -> dict:
    """What a model card states that no table holds."""
    names = [*study.prompt_sources(), *model_sources(study.config.models[wildcards.model])]
    return {
        **study.report(wildcards.model),
        "own_layers": study.layers(wildcards.run) if study.finetuned(wildcards.run) else [],
        "origin": study.config.models[wildcards.model].model_dump(exclude_none=True),
        "sources": {name: study.config.sources[name].model_dump(exclude_none=True) for name in names},
    }


def files_of_run(row: dict) -> list[str]:
    """What the milestone of a model makes of one run."""
    verdicts_of_run = [
        f"verdicts/{bundle}.{judge}.csv"
        for bundle in study.bundles()
        for judge in study.config.select.judges
        if row["run"] in study.bundle_runs(bundle)
    ]
    trained = ["training.csv"] if is_finetuned(row) else []
    merged = ["merged/check.json"] if row["run"] in study.config.release else []
    return ["separability.csv", "drift.csv", "lm_eval.json", *trained, *merged, *verdicts_of_run]
