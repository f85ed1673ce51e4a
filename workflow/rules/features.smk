"""Teachers: trained here where they are, and their features of every scene, computed once."""


rule pretrain_teacher:
    input:
        scenes=of_wildcards(specs.teacher_scenes),
    output:
        manifest=paths.TEACHER,
    log:
        "results/logs/pretrain_teacher/{teacher}.log",
    benchmark:
        "results/benchmarks/pretrain_teacher/{teacher}.tsv"
    priority: 50
    conda:
        "../../envs/teachers.yaml"
    threads: 1
    resources:
        mem_mb=2500,
        runtime=120,
        gpu=0,
    params:
        spec=of_wildcards(specs.pretrain_teacher),
    message:
        "pretrain teacher   {wildcards.teacher}"
    shell:
        "logged {log} python -m pipeline pretrain_teacher --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --scenes {input.scenes} --out {output.manifest}"


rule extract:
    input:
        scenes=paths.SCENES,
        weights=of_wildcards(specs.teacher_weights),
        source=of_wildcards(specs.feature_sources),
    output:
        manifest=paths.FEATURES,
    log:
        "results/logs/extract/{dataset}/{teacher}/{shard}.log",
    benchmark:
        "results/benchmarks/extract/{dataset}/{teacher}/{shard}.tsv"
    priority: 30
    conda:
        "../../envs/teachers.yaml"
    threads: 1
    resources:
        mem_mb=2500,
        runtime=120,
        gpu=0,
    params:
        spec=of_wildcards(specs.extract),
        weights=flag("weights"),
        source=flag("source"),
    message:
        "extract            {wildcards.dataset} x {wildcards.teacher}, {wildcards.shard}"
    shell:
        "logged {log} python -m pipeline extract --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --scenes {input.scenes} {params.weights} {params.source} --out {output.manifest}"
