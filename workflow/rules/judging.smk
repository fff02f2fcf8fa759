"""Judging: answers -> verdicts, by a list of phrases or by a model that is asked (section 7)."""


def judges_of(wanted: Callable) -> str:
    """A wildcard's constraint: one of the judges whose kind is wanted."""
    return one_of(name for name, judge in study.config.judges.items() if wanted(judge.kind))


def judging_manifest(wildcards) -> list[str]:
    """The manifest of the model that judges, where it is one of the catalogue."""
    model = study.judging(wildcards.judge)
    return [f"resources/models/{model}/manifest.json"] if model else []


def judging_settings(wildcards) -> dict:
    """How this model is loaded."""
    model = study.judging(wildcards.judge)
    return model_settings(model) if model else {}


def judging_memory(wildcards) -> int:
    """MB for a judge's job: what an answering model gets, and more for judgezoo's classifiers of 2 to 13 billion
    parameters."""
    return 32000 if study.config.judges[wildcards.judge].kind == "judgezoo" else 6000


def judging_gpus(wildcards) -> int:
    """GPUs for a judge's job: none where the judge stands behind an endpoint."""
    return 0 if getattr(study.config.judges[wildcards.judge], "endpoint", None) else GPUS


rule judge_answers:
    """Give every answer of one bundle its verdict: refusal, compliance, degenerate, or missing. The table has no text."""
    input:
        answers="<run>/answers/{bundle}.jsonl",
        prompts=prompts(),
    output:
        verdicts="<run>/verdicts/{bundle}.{judge}.csv",
    log:
        "<logs>/judge_answers/<job>/{bundle}.{judge}.log",
    benchmark:
        "<timings>/judge_answers/<job>/{bundle}.{judge}.tsv"
    wildcard_constraints:
        judge=judges_of(lambda kind: kind == "keyword"),
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        row=row,
        name=lambda w: w.judge,
        judge=lambda w: study.config.judges[w.judge].model_dump(),
        code=code("judge_answers", lambda w: [JUDGES[study.config.judges[w.judge].kind]]),
    script:
        "../scripts/judge_answers.py"


rule ask_judge:
    """Ask a model for its verdict on every answer of one bundle; what it cannot read is missing. The table has no text."""
    input:
        answers="<run>/answers/{bundle}.jsonl",
        prompts=prompts(),
        model=judging_manifest,
    output:
        verdicts="<run>/verdicts/{bundle}.{judge}.csv",
    log:
        "<logs>/ask_judge/<job>/{bundle}.{judge}.log",
    benchmark:
        "<timings>/ask_judge/<job>/{bundle}.{judge}.tsv"
    wildcard_constraints:
        judge=judges_of(lambda kind: kind != "keyword"),
    threads: THREADS
    resources:
        mem_mb=judging_memory,
        runtime=720,
        gpu=judging_gpus,
    params:
        row=row,
        name=lambda w: w.judge,
        judge=lambda w: study.config.judges[w.judge].model_dump(),
        sets=lambda w: study.judged_sets(w.judge),
        model=judging_settings,
        code=code("ask_judge", lambda w: [JUDGES[study.config.judges[w.judge].kind]]),
    script:
        "../scripts/ask_judge.py"


rule collect_judges:
    """How far the judges agree about the same answers; made where the study has more than one."""
    input:
        verdicts=lambda w: verdicts(scope(w)),
    output:
        table=report(
            "<results>/tables/{sweep}judges.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "judges"},
        ),
    log:
        "<logs>/collect_judges/{sweep}all.log",
    benchmark:
        "<timings>/collect_judges/{sweep}all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        seed=study.config.splits_seed,
        code=code("collect_judges"),
    script:
        "../scripts/collect_judges.py"
