"""The report: one self-contained HTML page."""


rule report:
    input:
        summary=paths.SUMMARY,
    output:
        page=report(paths.REPORT, category="Study", caption="../report/study.rst"),
    log:
        "results/logs/report/report.log",
    benchmark:
        "results/benchmarks/report/report.tsv"
    conda:
        "../../envs/tables.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        spec=specs.report(),
    message:
        "report             {output.page}"
    shell:
        "logged {log} python -m pipeline report --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --summary {input.summary} --out {output.page}"
