"""Answers of every run to all benchmarks (the model is loaded once), then their scores by the official metrics."""


rule predict:
    input:
        scenes=paths.SCENES,
        run=paths.RUN_MANIFEST,
    output:
        manifest=paths.PREDICTIONS,
    log:
        f"results/logs/predict/{paths.RUN}.log",
    benchmark:
        f"results/benchmarks/predict/{paths.RUN}.tsv"
    priority: 10
    conda:
        "../../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=2500,
        runtime=120,
        gpu=0,
    params:
        spec=of_wildcards(specs.predict),
    message:
        "predict            {wildcards.dataset} x {wildcards.backbone} x {wildcards.teacher} x {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "logged {log} python -m pipeline predict --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --scenes {input.scenes} --run {input.run} --out {output.manifest}"


rule score:
    input:
        scenes=paths.SCENES,
        predictions=paths.PREDICTIONS,
    output:
        scores=expand(
            paths.SCORES,
            benchmark=specs.config.study["benchmarks"],
            allow_missing=True,
        ),
    log:
        f"results/logs/score/{paths.RUN}.log",
    benchmark:
        f"results/benchmarks/score/{paths.RUN}.tsv"
    priority: 10
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=2500,
        runtime=60,
        gpu=0,
    params:
        spec=of_wildcards(specs.score),
    message:
        "score              {wildcards.dataset} x {wildcards.backbone} x {wildcards.teacher} x {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "logged {log} python -m pipeline score --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --scenes {input.scenes} --predictions {input.predictions} --out {output.scores}"
