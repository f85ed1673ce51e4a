"""One table per dataset x backbone cell, and the table of the study."""


rule cell:
    input:
        runs=of_cell(paths.RUN_MANIFEST),
        scores=of_cell(paths.SCORES),
    output:
        table=paths.CELL,
    log:
        "results/logs/cell/{dataset}/{backbone}.log",
    benchmark:
        "results/benchmarks/cell/{dataset}/{backbone}.tsv"
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        spec=of_wildcards(specs.cell),
    message:
        "cell               {wildcards.dataset} x {wildcards.backbone}"
    shell:
        "logged {log} python -m pipeline cell --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --runs {input.runs} --scores {input.scores} --out {output.table}"


rule summary:
    input:
        cells=specs.cells(),
    output:
        table=paths.SUMMARY,
        text="results/tables/summary.md",
    log:
        "results/logs/summary/summary.log",
    benchmark:
        "results/benchmarks/summary/summary.tsv"
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        spec=specs.summary(),
    message:
        "summary            all cells"
    shell:
        "logged {log} python -m pipeline summary --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --cells {input.cells} --out {output.table}"
