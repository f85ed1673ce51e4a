"""The command line: one command per rule, and tools. ``threedrs --help`` lists them, ``threedrs COMMAND --help`` explains one
(``python -m pipeline`` is the same).

A user's mistake (PipelineError) and a fault of disk, permissions or paths (faults.py) give one message and exit code 2;
anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import select
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.faults import environment_fault
from pipeline.core.files import refuse_special_files
from pipeline.core.finished import forced
from pipeline.core.locks import FolderLock

COMMANDS = Path(__file__).parent / "commands"


def commands() -> list[str]:
    """Names of all commands: the files of pipeline/commands/."""
    return sorted(p.stem for p in COMMANDS.glob("*.py") if not p.stem.startswith("_"))


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


def parser(asked: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command that is ``asked`` for, whose module alone is imported; of all, by name, for another."""
    top = argparse.ArgumentParser(
        prog="threedrs" if Path(sys.argv[0]).name == "threedrs" else "python -m pipeline",
        description="Steps of the 3DRS pipeline, one command per Snakemake rule, and tools.",
    )
    top.add_argument("--version", action="version", version=__version__)
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    if asked in commands():
        module = importlib.import_module(f"pipeline.commands.{asked}")
        _configure(subparsers.add_parser(asked, description=module.HELP), module)
    else:
        for name in commands():
            subparsers.add_parser(name, help=_help(name))
    return top


def _help(name: str) -> str:
    """The one line that a command's file gives as HELP, read without importing it."""
    for statement in ast.parse((COMMANDS / f"{name}.py").read_bytes()).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "HELP":
            return str(ast.literal_eval(statement.value))
    raise NotImplementedError(f"pipeline/commands/{name}.py has no HELP")


def _configure(command: argparse.ArgumentParser, module: ModuleType) -> None:
    """Add the options of every command, and the module's own."""
    command.add_argument(
        "--spec", type=_spec, default=Spec(), metavar="JSON", help="resolved cell specification, JSON or @file"
    )
    command.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    command.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs (default 0: CPU)")
    command.add_argument("--force", action="store_true", help="do it again even if the same is finished")
    module.configure(command)
    command.set_defaults(module=module)  # not `run`: predict has an option --run


def _outputs(args: argparse.Namespace) -> list[Path]:
    """The files of ``--out``, of commands that have it."""
    out = getattr(args, "out", None)
    return [out] if isinstance(out, Path) else list(out or [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    refuse_special_files()
    given = sys.argv[1:] if arguments is None else arguments
    args = parser(next((word for word in given if not word.startswith("-")), None)).parse_args(given)
    args.force = args.force or forced(args.command, _outputs(args))
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    try:
        with _sole_writer(args):
            args.module.run(args)
        _flush()
    except BrokenPipeError:
        if not _readers_gone():
            raise
        return 141  # as a shell reports a command that SIGPIPE ended: `check | head`
    except PipelineError as error:
        return _report(error)
    except KeyboardInterrupt:
        print(
            f"{args.command}: interrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr
        )
        return 130
    except Exception as error:
        fault = environment_fault(error, _place(args))
        if fault is None:
            raise
        return _report(fault)
    return 0


def _sole_writer(args: argparse.Namespace) -> AbstractContextManager[object]:
    """The lock of the folder that the command fills; nothing for commands that write single files, each at once."""
    return FolderLock(args.out.parent) if getattr(args.module, "OWNS_FOLDER", False) else nullcontext()


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
    """The folder of the command's output, if it has any."""
    outputs = _outputs(args)
    return outputs[0].parent if outputs else None


def _report(error: PipelineError) -> int:
    """Print an error; the exit code."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return error.exit_code


def _readers_gone() -> bool:
    """Return whether nobody reads standard output or error any more; what is still to be written there is dropped then."""
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
