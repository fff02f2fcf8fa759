"""Judging: answers -> verdicts, by a list of phrases or by a model that is asked (docs/method.md, section 7)."""


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
        code=code("judge_answers", lambda w: [registry.JUDGES[study.config.judges[w.judge].kind]]),
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
        code=code("ask_judge", lambda w: [registry.JUDGES[study.config.judges[w.judge].kind]]),
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
