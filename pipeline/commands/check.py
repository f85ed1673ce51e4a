"""Check a configuration and say what it will run, before any job starts (exit 2 with one message when it is wrong)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.errors import ConfigError
from pipeline.doctor.scenes import planned, will_lack
from pipeline.doctor.selection import select
from pipeline.study.config import read_config

if TYPE_CHECKING:
    from pipeline.study.config import StudyConfig

HELP = "check config files (merged left to right) and print the size of the study"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configfiles", nargs="*", type=Path, default=[Path("config.yaml")], help="default: config.yaml")


def run(args: argparse.Namespace) -> None:
    config = read_config(args.configfiles)
    _refuse_what_preparing_cannot_give(config)
    study = config.study
    runs = 1
    for section in ("datasets", "backbones", "teachers", "recipes", "seeds"):
        runs *= len(study[section])
        print(f"{section:<11} {', '.join(str(v) for v in study[section])}")
    print(f"{'benchmarks':<11} {', '.join(study['benchmarks'])}")
    print(f"{runs} runs, each scored on {len(study['benchmarks'])} benchmarks")


def _refuse_what_preparing_cannot_give(config: StudyConfig) -> None:
    """ConfigError when a dataset will have no scenes or annotations that the study reads, prepared already or not."""
    selection = select(config)
    for name in selection.datasets:
        extent = planned(selection, name)
        if name in selection.study:
            for need in will_lack(selection, name, extent):
                raise ConfigError(need.what, where=f"config.yaml: {need.where}", fix=need.fix)
        elif extent is not None and not extent.scenes.get("train"):
            what = f"{name} will have no scene of split train for the {selection.roles[name]}"
            raise ConfigError(what, where=f"config.yaml: datasets.{name}.train")
