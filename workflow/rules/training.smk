"""Backbones built here learn single 2D views first; then every run is fine-tuned on 3D scene tasks."""


rule pretrain_backbone:
    input:
        scenes=of_wildcards(specs.backbone_scenes),
    output:
        manifest=paths.BACKBONE,
    log:
        "results/logs/pretrain_backbone/{backbone}.log",
    benchmark:
        "results/benchmarks/pretrain_backbone/{backbone}.tsv"
    priority: 60
    conda:
        "../../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=2500,
        runtime=120,
        gpu=0,
    params:
        spec=of_wildcards(specs.pretrain_backbone),
    message:
        "pretrain backbone  {wildcards.backbone}"
    shell:
        "logged {log} python -m pipeline pretrain_backbone --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --scenes {input.scenes} --out {output.manifest}"


rule train:
    input:
        scenes=paths.SCENES,
        weights=of_wildcards(specs.backbone_weights),
        features=of_wildcards(specs.features),
    output:
        manifest=paths.RUN_MANIFEST,
    log:
        f"results/logs/train/{paths.RUN}.log",
    benchmark:
        f"results/benchmarks/train/{paths.RUN}.tsv"
    priority: 20
    conda:
        "../../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=2500,
        runtime=240,
        gpu=0,
    params:
        spec=of_wildcards(specs.train),
        weights=flag("weights"),
        features=flag("features"),
    message:
        "train              {wildcards.dataset} x {wildcards.backbone} x {wildcards.teacher} x {wildcards.recipe}, seed {wildcards.seed}"
    shell:
        "logged {log} python -m pipeline train --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --scenes {input.scenes} {params.weights} {params.features} --out {output.manifest}"
