"""What all rules share; the workflow's only Python: checked config, wildcard constraints, functions of wildcards."""

import inspect
import json
import os
import shlex
import sys
from pathlib import Path

from pipeline.core import screen
from pipeline.core.errors import PipelineError
from pipeline.core.finished import FORCED
from pipeline.core.installed import refuse_another_checkout
from pipeline.study import paths
from pipeline.study.config import StudyConfig
from pipeline.study.configfile import read_files
from pipeline.study.specs import Specs

# Jobs run `python -m pipeline` with this interpreter (unless a conda environment is activated in front of it).
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)

FAILURES = "results/logs/failed"

# `logged LOG COMMAND...` keeps a job's output in its log, shows its lines that begin with "warning:" on the screen too and,
# when the job fails, keeps the end of it for the last words of the whole run (onerror).
shell.prefix(
    "set -euo pipefail; "
    'logged() {{ local log="$1" code=0; shift; "$@" > "$log" 2>&1 || code=$?; '
    f'local failure="{FAILURES}/$(tr / + <<< "$log")"; rm -f "$failure"; '
    'if [ $code -eq 0 ]; then grep "^warning: " "$log" >&2 || true; '
    f'else mkdir -p {FAILURES}; {{{{ echo; echo "FAILED: $log"; tail -n 15 "$log"; }}}} '
    '> "$failure"; fi; return $code; }}; '
)


screen.shorten(workflow.logger_manager.logger.handlers)


def checked(make):
    """What ``make`` gives; a fault of the configuration ends Snakemake with one message, before any job starts."""
    try:
        return make()
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


# Snakemake's own reader takes the last of two equal keys, `yes` for true and `010` for 8. It has read the files of
# --configfile by now; config.yaml it reads next.
checked(
    lambda: read_files(
        [*filter(Path.exists, [Path("config.yaml")]), *workflow.configfiles]
    )
)

STUDY_FILES = [os.path.relpath(path) for path in workflow.configfiles]


configfile: "config.yaml"


checked(lambda: refuse_another_checkout(Path(workflow.basedir)))
specs = checked(lambda: Specs(StudyConfig(config)))


def forced_by_user():
    """JSON list of the rules and files that -f, -F and --forcerun name, for the jobs (finished.py): a job that only follows
    from them keeps a result whose inputs did not change."""
    settings = workflow.dag_settings
    chosen = set(settings.forcerun or ())
    if settings.forcetargets:
        chosen |= set(map(str, settings.targets or ()))
    return json.dumps(sorted({"*"} if settings.forceall else chosen))


def names(section):
    """Pattern that matches the names of a section of the config and nothing else."""
    return "|".join(getattr(specs.config, section))


def name_study_files():
    """Last words of a failed run whose messages give a command: jobs do not know the files of --configfile, and without
    them the command would make config.yaml's own study instead."""
    said = "".join(
        path.read_text(errors="replace") for path in Path(FAILURES).glob("*")
    )
    if "snakemake --cores" in said and set(STUDY_FILES) - {"config.yaml"}:
        print(
            f"\nWith a command above, repeat: --configfile {shlex.join(STUDY_FILES)}",
            file=sys.stderr,
        )


wildcard_constraints:
    dataset=names("datasets"),
    teacher=names("teachers"),
    backbone=names("backbones"),
    recipe=names("recipes"),
    benchmark=names("benchmarks"),
    shard=r"shard\d+",
    seed=r"\d+",


def of_wildcards(function):
    """``function`` of a job's wildcards, taken by the names of its arguments."""
    wanted = list(inspect.signature(function).parameters)

    def resolve(wildcards):
        values = {name: getattr(wildcards, name) for name in wanted}
        return checked(lambda: function(**values))

    return resolve


def needs(name):
    """What preparing a job's dataset needs of this: ``threads``, ``mem_mb`` or ``runtime_min``."""

    def resolve(wildcards):
        return getattr(specs.needs(wildcards.dataset), name)

    return resolve


def flag(name):
    """The command line option ``--name`` with the input files of that name; nothing when the job has none of them."""

    def resolve(wildcards, input):
        files = list(input.get(name, []))
        return " ".join([f"--{name}", *files]) if files else ""

    return resolve


# What `prepare` found doubtful in the study's datasets, said again as the last words of a run: hours lie between.
DATA_NOTES = "grep -h '^warning: ' {} >&2 2> /dev/null || true".format(
    " ".join(
        f"results/logs/prepare/{name}.log" for name in specs.config.study["datasets"]
    )
)


def of_cell(pattern):
    """Files of this pattern of every run (and benchmark) of a dataset x backbone cell."""

    def resolve(wildcards):
        return specs.cell_inputs(pattern, wildcards.dataset, wildcards.backbone)

    return resolve


def of_study(pattern):
    """Files of this pattern of every run of the study."""
    study = specs.config.study
    return [
        file
        for dataset in study["datasets"]
        for backbone in study["backbones"]
        for file in specs.cell_inputs(pattern, dataset, backbone)
    ]


def features_of_study():
    """Feature manifests of every dataset x teacher of the study."""
    study = specs.config.study
    return [
        file
        for dataset in study["datasets"]
        for teacher in study["teachers"]
        for file in specs.features(dataset, teacher)
    ]
