"""Data: sources -> files with their hashes -> prompt sets with splits (docs/method.md, section 3); and what the hub holds."""


rule fetch_source:
    """Bring one source of the config to a file, with a note beside it of where it came from."""
    input:
        source_input,
    output:
        "resources/sources/{file}",
        "resources/sources/{file}.json",
    log:
        "<logs>/fetch_source/{file}.log",
    benchmark:
        "<timings>/fetch_source/{file}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        name=source_name,
        cfg=lambda w: study.config.sources[source_name(w)].model_dump(exclude_none=True),
        code=code("fetch_source"),
    script:
        "../scripts/fetch_source.py"


rule prepare_prompts:
    """Read the sources, split all prompt sets together by near-twin cluster, and check that nothing leaks."""
    input:
        sources=[data(name) for name in study.prompt_sources()],
    output:
        sets=expand("<results>/prompts/{set}.parquet", set=SETS),
        splits="<results>/prompts/splits.csv",
        checks="<results>/prompts/checks.csv",
    log:
        "<logs>/prepare_prompts.log",
    benchmark:
        "<timings>/prepare_prompts/all.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        source_names=study.prompt_sources(),
        sources={name: study.config.sources[name].model_dump(exclude_none=True) for name in study.prompt_sources()},
        set_names=list(SETS),
        sets={name: study.config.prompt_sets[name].model_dump() for name in SETS},
        seed=study.config.splits_seed,
        code=code("prepare_prompts"),
    script:
        "../scripts/prepare_prompts.py"


rule fetch_model:
    """Bring a model of the hub into the Hugging Face cache: where its conversion runs there may be no network."""
    output:
        note="resources/hub/{model}.json",
    log:
        "<logs>/fetch_model/{model}.log",
    benchmark:
        "<timings>/fetch_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(HUB_MODELS),
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
        disk_mb=disk(2),
    params:
        name=lambda w: w.model,
        cfg=lambda w: study.config.models[w.model].model_dump(include={"format", "repo", "revision"}),
        code=code("fetch_model"),
    script:
        "../scripts/fetch_model.py"


rule fetch_task:
    """Bring the questions of a harness task into the study's datasets cache, as fetch_model does."""
    output:
        note="resources/tasks/{task}.json",
    log:
        "<logs>/fetch_task/{task}.log",
    benchmark:
        "<timings>/fetch_task/{task}.tsv"
    wildcard_constraints:
        task=one_of(study.fetched_tasks()),
    localrule: True
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        name=lambda w: w.task,
        code=code("fetch_task"),
    script:
        "../scripts/fetch_task.py"
