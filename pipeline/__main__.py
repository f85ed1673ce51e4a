"""The command line: one verb per rule. ``python -m pipeline --help`` lists them, ``python -m pipeline VERB --help`` explains.

A user's mistake (PipelineError) gives one message and exit code 2; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import PipelineError


def verbs() -> list[str]:
    """Names of all verbs: the files of pipeline/steps/."""
    return sorted(p.stem for p in (Path(__file__).parent / "steps").glob("*.py") if not p.stem.startswith("_"))


def _spec(text: str) -> dict[str, Any]:
    """``--spec``: JSON, or @FILE with JSON."""
    try:
        content = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (OSError, json.JSONDecodeError) as error:
        raise argparse.ArgumentTypeError(f"not a JSON object or @file with one: {error}") from None
    if not isinstance(content, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return content


def parser() -> argparse.ArgumentParser:
    """The parser with all verbs; step modules import nothing heavy at top level."""
    top = argparse.ArgumentParser(
        prog="python -m pipeline", description="Steps of the 3DRS pipeline, one verb per Snakemake rule."
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in verbs():
        step = importlib.import_module(f"pipeline.steps.{verb}")
        command = commands.add_parser(verb, help=step.HELP, description=step.HELP)
        command.add_argument(
            "--spec", type=_spec, default={}, metavar="JSON", help="resolved cell specification, JSON or @file"
        )
        command.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
        command.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs (default 0: CPU)")
        step.configure(command)
        command.set_defaults(step=step)  # not `run`: predict has an option --run
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code."""
    args = parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    try:
        args.step.run(args)
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno != 28:
            raise
        print(f"EnvironmentFaultError: no space left on the device ({error.filename or 'writing results'})", file=sys.stderr)
        print("  mend:    free space and run the same command again; finished scenes and jobs are kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{args.verb}: interrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
