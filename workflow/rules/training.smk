"""Training: a parent's own answers and states -> an adapter, relative to the shipped base (sections 4 and 5)."""


rule record_reference:
    """Record a parent's own answers, with its states along them: what its children are held to and measured by."""
    input:
        model=manifest,
        adapter=adapter(own),
        prompts=prompts(),
    output:
        answers="<run>/reference/answers.jsonl",
        states="<run>/reference/states.safetensors",
    log:
        "<logs>/record_reference/<job>.log",
    benchmark:
        "<timings>/record_reference/<job>.tsv"
    priority: 1  # what everything else waits for
    threads: THREADS
    resources:
        mem_mb=memory(4000, 2),
        runtime=minutes(120),
        disk_mb=disk(0.1),
        gpu=GPUS,
    params:
        row=row,
        cfg=cfg("model", sets=SETS, judge=JUDGE.model_dump(), reference=recorded, batch_rows=BATCH_ROWS),
        code=code("record_reference", [registry.JUDGES[JUDGE.kind]]),
    script:
        "../scripts/record_reference.py"


rule bring_adapter:
    """Bring an adapter that others trained, checked against its base."""
    input:
        model=manifest,
        config=lambda w: data(study.config.runs[w.run].adapter.config),
        weights=lambda w: data(study.config.runs[w.run].adapter.weights),
    output:
        adapter_config=f"{folder_of(study.external)}/adapter/adapter_config.json",
        adapter_weights=f"{folder_of(study.external)}/adapter/adapter_model.safetensors",
    log:
        "<logs>/bring_adapter/<job>.log",
    benchmark:
        "<timings>/bring_adapter/<job>.tsv"
    threads: 1
    resources:
        mem_mb=memory(4000, 2, "float32"),
        runtime=minutes(30),
    params:
        row=row,
        code=code("bring_adapter"),
    script:
        "../scripts/bring_adapter.py"


rule finetune:
    """Train one run's adapter from its parent's. Checkpoints are no output, so that they outlive a killed job."""
    input:
        model=manifest,
        adapter=adapter(parent),
        prompts=prompts(),
        layers=one(parent, "layers.json"),
        embeddings=one(parent, "embeddings.safetensors"),
        answers=one(parent, REFERENCE[0]),
        states=one(parent, REFERENCE[1]),
        refusals=refusals,
        compliant=compliant,
    output:
        adapter_config=f"{folder_of(study.finetuned)}/adapter/adapter_config.json",
        adapter_weights=f"{folder_of(study.finetuned)}/adapter/adapter_model.safetensors",
        table="<run>/training.csv",
    log:
        "<logs>/finetune/<job>.log",
    benchmark:
        "<timings>/finetune/<job>.tsv"
    priority: 1
    threads: THREADS
    resources:
        mem_mb=memory(4500, 3),
        runtime=minutes(720),
        gpu=GPUS,
    params:
        row=row,
        cfg=cfg("model", answer_tokens=ANSWER_TOKENS, training=lambda w: study.training(w.run)),
        checkpoints=lambda w: at(row(w), "checkpoints"),
        code=code("finetune", method_of),
    script:
        "../scripts/finetune.py"
