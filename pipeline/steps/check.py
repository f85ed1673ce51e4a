"""Check a configuration and say what it will run, before any job starts (exit 2 with one message when it is wrong)."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "check config files (merged left to right) and print the size of the study"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configfiles", nargs="*", type=Path, default=[Path("config.yaml")], help="default: config.yaml")


def run(args: argparse.Namespace) -> None:
    from pipeline.config import read_config

    config = read_config(args.configfiles)
    study = config.study
    runs = 1
    for section in ("datasets", "backbones", "teachers", "recipes", "seeds"):
        runs *= len(study[section])
        print(f"{section:<11} {', '.join(str(v) for v in study[section])}")
    print(f"{'benchmarks':<11} {', '.join(study['benchmarks'])}")
    print(f"{runs} runs, each scored on {len(study['benchmarks'])} benchmarks")
