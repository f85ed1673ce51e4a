"""Scenes: posed RGB-D folders with annotations in the official formats, and their index."""


rule prepare:
    output:
        manifest=paths.SCENES,
    log:
        "results/logs/prepare/{dataset}.log",
    benchmark:
        "results/benchmarks/prepare/{dataset}.tsv"
    priority: 70
    conda:
        "../../envs/data.yaml"
    threads: needs("threads")
    resources:
        mem_mb=needs("mem_mb"),
        runtime=needs("runtime_min"),
        gpu=0,
    params:
        spec=of_wildcards(specs.prepare),
    message:
        "prepare            {wildcards.dataset}"
    shell:
        "logged {log} python -m pipeline prepare --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu} --out {output.manifest}"
