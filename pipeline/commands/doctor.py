"""Say whether everything is there that a study needs, and what it will cost, before any hour is spent.

Exit code 0 when nothing is missing, 2 with the list otherwise. Nothing is downloaded, computed or changed; weights are
checked by their headers.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path

from pipeline.core.errors import ConfigError, EnvironmentFaultError
from pipeline.doctor import SUSTAINED_TFLOPS
from pipeline.doctor.examine import examine
from pipeline.doctor.text import WIDEST, WIDTH, render
from pipeline.study.config import read_config

HELP = "say what a study needs, what of it is missing and what it will cost (licences, weights, data, environment)"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configfiles", nargs="*", type=Path, default=[Path("config.yaml")], help="default: config.yaml")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--tflops",
        type=float,
        default=SUSTAINED_TFLOPS,
        metavar="N",
        help="TFLOP/s that one GPU sustains, for the estimated hours (default %(default)g, an A100)",
    )


def run(args: argparse.Namespace) -> None:
    if not 0 < args.tflops < math.inf:
        raise ConfigError(f"--tflops is {args.tflops:g}", allowed="a number above 0")
    report = examine(read_config(args.configfiles), args.configfiles, args.tflops)
    if args.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        print(render(report, min(max(columns, WIDTH), WIDEST)), end="")
    if report.missing:
        count = len(report.missing)
        raise EnvironmentFaultError(f"{count} {'thing is' if count == 1 else 'things are'} missing, listed above")
