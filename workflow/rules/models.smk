"""Models: a source -> a folder of safetensors weights with a manifest of hashes -> embeddings of all prompts."""


rule convert_model:
    """Bring one model into the study's folder form; everything else depends on the manifest, which holds the hashes."""
    input:
        source=model_source,
        fetched=fetched_model,
    output:
        manifest="resources/models/{model}/manifest.json",
    log:
        "<logs>/convert_model/{model}.log",
    benchmark:
        "<timings>/convert_model/{model}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(3000, 2, "float32"),
        runtime=minutes(60),
        disk_mb=disk(1, "float32"),
    params:
        name=lambda w: w.model,
        cfg=lambda w: study.config.models[w.model].model_dump(exclude_none=True, exclude=HOW_IT_IS_RUN),
        code=code("convert_model"),
    script:
        "../scripts/convert_model.py"


rule extract_embeddings:
    """Embed one run's prompts at every layer, at the last prompt token; the defence prompts of a parent only."""
    input:
        model=manifest,
        adapter=adapter(own),
        prompts=prompts(),
    output:
        embeddings="<run>/embeddings.safetensors",
    log:
        "<logs>/extract_embeddings/<job>.log",
    benchmark:
        "<timings>/extract_embeddings/<job>.tsv"
    threads: THREADS
    resources:
        mem_mb=memory(3000, 2),
        runtime=minutes(60),
        disk_mb=disk(0.2),
        gpu=GPUS,
    params:
        row=row,
        cfg=cfg("model", "extraction", defence=lambda w: study.is_parent(w.run)),
        code=code("extract_embeddings"),
    script:
        "../scripts/extract_embeddings.py"
