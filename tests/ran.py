"""Which functions of the package run when a command does: every call of the interpreter is watched, in every thread.

    python tests/ran.py SCENES_MANIFEST FOLDER COMMAND...

prints, for every command of tests/every_command.py in miniature, what ran and is no part of the command's closure.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import every_command

import pipeline
from pipeline import __main__
from pipeline.core import registry
from pipeline.scenes.index import SceneIndex
from pipeline.study.closure import PACKAGE, Closure, Place, counts, dotted
from pipeline.study.syntax import read_source

READ_ONLY = ("score", "parse", "tune", "measure")
METHODS_LEFT_OUT = {"train": READ_ONLY, "pretrain_backbone": READ_ONLY, "report": READ_ONLY, "predict": ("score",)}


def import_all() -> None:
    """So that nothing runs later only because it is imported."""
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def watched(run: Any, *arguments: Any) -> set[CodeType]:
    """Code of the package's functions that ``run(*arguments)`` calls, but for what only listed code calls."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code not in seen and _is_ours(frame.f_code) and not _called_by_listed(frame):
            seen.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run(*arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen


def _is_ours(code: CodeType) -> bool:
    """A function of the package; bodies of classes and modules are none."""
    return code.co_filename.startswith(str(PACKAGE)) and bool(code.co_flags & inspect.CO_OPTIMIZED)


def _called_by_listed(frame: FrameType) -> bool:
    caller = frame.f_back
    while caller is not None:
        if _is_ours(caller.f_code) and not counts(place_of(caller.f_code)):
            return True
        caller = caller.f_back
    return False


def place_of(code: CodeType) -> Place:
    """The part that a function is, or is in."""
    return Path(code.co_filename), code.co_qualname.split(".")[0]


def starts(command: str, spec: dict[str, Any]) -> list[Place]:
    """Where the closure of a command of every_command begins: its command and its members."""
    members = [(f"{key}s", spec[key]) for key in ("dataset", "teacher", "backbone") if isinstance(spec.get(key), dict)]
    members += [("benchmarks", found) for found in spec.get("benchmarks", {}).values() if "kind" in found]
    found = [(interface, str(member["kind"])) for interface, member in members]
    classes = [(registry.member_path(i, kind), registry.member_class(i, kind).__name__) for i, kind in found]  # type: ignore[arg-type]
    return [(PACKAGE / "commands" / f"{command}.py", "run"), *classes]


def missed(command: str, spec: dict[str, Any], ran: set[CodeType]) -> list[str]:
    """What ran and does not count, though it is on no list of what changes no result."""
    closure = Closure(registry.folders("benchmarks"))
    counted = closure.places(starts(command, spec), METHODS_LEFT_OUT.get(command, ()))
    found = set()
    for code in ran:
        place = place_of(code)
        if place[1] in read_source(place[0]).parts and place not in counted and counts(place):
            found.add(f"{dotted(place[0])}.{code.co_qualname}")
    return sorted(found)


def main(scenes: str, folder: str, *names: str) -> None:
    import_all()
    commands = every_command.study_commands(Path(folder), SceneIndex(Path(scenes)))
    result = {}
    for command in names:
        args = __main__.parser(command).parse_args(commands[command].arguments())
        ran = watched(args.module.run, args)
        result[command] = {"ran": len(ran), "missed": missed(command, dict(commands[command].spec or {}), ran)}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
