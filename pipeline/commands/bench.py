"""Measure this project against what it replaces, on your machine: ``python -m pipeline bench features``.

Each benchmark is a file of pipeline/speed/ without a leading underscore. It prints ratios of numbers measured side by side in
one run. No rule uses it.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

HELP = "measure the feature store, the teacher and the extraction on this machine (ratios of one run)"


def benchmarks() -> list[str]:
    """Names of all benchmarks."""
    folder = Path(__file__).parents[1] / "speed"
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name in benchmarks():
        module = importlib.import_module(f"pipeline.speed.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        # Also behind the benchmark's name; SUPPRESS, so that they do not undo what stands before it.
        command.add_argument("--threads", type=int, default=argparse.SUPPRESS, metavar="N", help="CPU threads (default 1)")
        command.add_argument("--gpus", type=int, default=argparse.SUPPRESS, metavar="N", help="GPUs (default 0: CPU)")
        module.configure(command)
        command.set_defaults(measure=module)


def run(args: argparse.Namespace) -> None:
    args.measure.run(args)
