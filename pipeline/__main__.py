"""The command line: one verb per rule. ``python -m pipeline --help`` lists them, ``python -m pipeline VERB --help`` explains.

A user's mistake (PipelineError) and a fault of disk, permissions or paths (faults.py) give one message and exit code 2;
anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.errors import ConfigError, PipelineError
from pipeline.faults import environment_fault
from pipeline.files import refuse_special_files
from pipeline.finished import forced
from pipeline.locks import FolderLock


def verbs() -> list[str]:
    """Names of all verbs: the files of pipeline/steps/."""
    return sorted(p.stem for p in (Path(__file__).parent / "steps").glob("*.py") if not p.stem.startswith("_"))


class Spec(dict[str, Any]):
    """A job's specification, or an object in it. A key that is asked for and not there is the user's mistake, not a bug."""

    def __missing__(self, key: str) -> Any:
        there = ", ".join(self) or "no key at all"
        fix = "take the whole command of a job: snakemake --dry-run --printshellcmds"
        raise ConfigError(f"the specification lacks the key {key!r} (it has {there})", where="--spec", fix=fix)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _spec(text: str) -> dict[str, Any]:
    """``--spec``: JSON, or @FILE with JSON."""
    try:
        text = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        content = json.loads(text, object_hook=Spec, parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
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
            "--spec", type=_spec, default=Spec(), metavar="JSON", help="resolved cell specification, JSON or @file"
        )
        command.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
        command.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs (default 0: CPU)")
        command.add_argument("--force", action="store_true", help="do it again even if the same is finished")
        step.configure(command)
        command.set_defaults(step=step)  # not `run`: predict has an option --run
    return top


def _outputs(args: argparse.Namespace) -> list[Path]:
    """The files of ``--out``, of verbs that have it."""
    out = getattr(args, "out", None)
    return [out] if isinstance(out, Path) else list(out or [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code."""
    refuse_special_files()
    args = parser().parse_args(arguments)
    args.force = args.force or forced(args.verb, _outputs(args))
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    try:
        with _sole_writer(args):
            args.step.run(args)
        _flush()
    except BrokenPipeError:
        if not _readers_gone():
            raise
        return 141  # as a shell reports a command that SIGPIPE ended: `check | head`
    except PipelineError as error:
        return _told(error)
    except KeyboardInterrupt:
        print(f"{args.verb}: interrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except Exception as error:
        fault = environment_fault(error, _place(args))
        if fault is None:
            raise
        return _told(fault)
    return 0


def _sole_writer(args: argparse.Namespace) -> AbstractContextManager[object]:
    """The lock of the folder that the verb fills; nothing for verbs that write single files, each at once."""
    return FolderLock(args.out.parent) if getattr(args.step, "OWNS_FOLDER", False) else nullcontext()


def _flush() -> None:
    """Write out what was printed: a full disk, or a reader that is gone, is noticed here and not when Python ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise


def _place(args: argparse.Namespace) -> Path | None:
    """The folder of the verb's output, if it has any."""
    outputs = _outputs(args)
    return outputs[0].parent if outputs else None


def _told(error: PipelineError) -> int:
    """Print an error; the exit code."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return error.exit_code


def _readers_gone() -> bool:
    """Whether nobody reads standard output or error any more; what is still to be written there is dropped then."""
    gone = [stream for stream in (sys.stdout, sys.stderr) if _reader_gone(stream.fileno())]
    for stream in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(gone)


def _reader_gone(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    sys.exit(main())
