"""The report: one self-contained HTML page."""


rule report:
    input:
        summary=paths.SUMMARY,
        scenes=expand(paths.SCENES, dataset=specs.config.study["datasets"]),
        features=features_of_study(),
        runs=of_study(paths.RUN_MANIFEST),
        predictions=of_study(paths.PREDICTIONS),
    output:
        page=report(paths.REPORT, category="Study", caption="../report/study.rst"),
    log:
        "results/logs/report/report.log",
    benchmark:
        "results/benchmarks/report/report.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        spec=specs.report(),
        features=flag("features"),
    message:
        "report             {output.page}"
    shell:
        "logged {log} python -m pipeline report --spec {params.spec:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --summary {input.summary} --scenes {input.scenes} {params.features}"
        " --runs {input.runs} --predictions {input.predictions} --out {output.page}"
