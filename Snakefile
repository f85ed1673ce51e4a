"""The 3DRS study as a workflow: scenes, teachers, cached features, fine-tuned runs, scores, tables, report.

    snakemake --cores all                                                     the whole study
    snakemake --cores all results/tables/summary.parquet                      the table alone
    snakemake --cores all features                                            stage one: all teacher features, no training
    snakemake --profile slurm                                                 the same on a Slurm cluster
    snakemake --cores all results/tables/cells/{dataset}/{backbone}.parquet   one dataset x backbone cell

The study is config.yaml; `--configfile config.yaml workflow/studies/NAME.yaml` lays another study over it.
"""

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    features,


rule all:
    default_target: True
    input:
        summary=paths.SUMMARY,
        cells=specs.cells(),
        report=paths.REPORT,


rule features:
    input:
        features=features_of_study(),


onstart:
    shell("rm -rf {FAILURES}")
    os.environ[FORCED] = forced_by_user()


onsuccess:
    shell(DATA_NOTES)


onerror:
    shell(DATA_NOTES)
    shell("cat {FAILURES}/* >&2 2> /dev/null || true")
    name_study_files()
