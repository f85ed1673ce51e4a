"""A folder is the registry: ``pipeline/teachers/vggt/`` is the teacher kind ``vggt``, ``pipeline/teachers/clip.py`` ``clip``.

Nothing is registered by hand and nothing is imported until it is asked for. A member's file (NAME.py, or NAME/__init__.py with
its own modules beside it) defines exactly one final class that derives from the folder's base (``datasets``: Dataset,
``teachers``: Teacher, ``backbones``: Backbone, ``benchmarks``: Benchmark) with an ``options_model``. It must import fast:
torch, transformers, open3d and zarr are imported inside functions or live in helper modules.

Extra folders: the environment variable PIPELINE_PLUGINS (os.pathsep-separated) names folders that hold subfolders
``datasets``, ``teachers``, ``backbones``, ``benchmarks`` with further members. Modules of a plug-in's own lie in its package,
beside its file under a name with an underscore (``from ._parts import x``), or wherever Python finds them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pipeline.core.errors import ConfigError, PipelineError, UnknownNameError
from pipeline.core.files import entries
from pipeline.core.options import did_you_mean, validate

Interface = Literal["datasets", "teachers", "backbones", "benchmarks"]
INTERFACES: tuple[Interface, ...] = ("datasets", "teachers", "backbones", "benchmarks")
_BASES: dict[str, str] = {
    "datasets": "Dataset",
    "teachers": "Teacher",
    "backbones": "Backbone",
    "benchmarks": "Benchmark",
}
PACKAGE = Path(__file__).parents[1]
_NOT_MEMBERS = {"base", "network"}
PLUGINS = "pipeline_plugins"
"""Package of all plug-ins: the file teachers/mine.py is pipeline_plugins.teachers.mine."""


def unknown(what: str, name: str, available: Iterable[str], *, where: str | None = None) -> UnknownNameError:
    """The error for a name that is not there, with the nearest one and all that are."""
    names = sorted(available)
    return UnknownNameError(
        f"unknown {what} {name!r}{did_you_mean(name, names)}", where=where, allowed=", ".join(names) or "(none defined)"
    )


def plugin_folders() -> list[Path]:
    """Return the folders that PIPELINE_PLUGINS names. ConfigError for one that does not exist."""
    found = [Path(p) for p in os.environ.get("PIPELINE_PLUGINS", "").split(os.pathsep) if p]
    for folder in found:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}", where="PIPELINE_PLUGINS", fix="correct or unset the variable")
    return found


def folders(interface: Interface) -> list[Path]:
    """Return where the members of an interface are: in the package, then in the folders of plug-ins."""
    return [folder / interface for folder in (PACKAGE, *plugin_folders())]


def member_files(interface: Interface) -> dict[str, Path]:
    """Kind name -> file, found by scanning: ``NAME.py``, or ``NAME/__init__.py``. ``base.py``, ``network.py`` and names with a
    leading underscore are none. ConfigError where two have one name: nobody could tell which of them is used."""
    found: dict[str, Path] = {}
    for folder in folders(interface):
        for path in _member_paths(folder) if folder.is_dir() else []:
            kind = path.parent.name if path.name == "__init__.py" else path.stem
            if kind in _NOT_MEMBERS or kind.startswith("_"):
                continue
            if kind in found:
                raise ConfigError(
                    f"two {interface} have the name {kind!r}",
                    where=f"{found[kind]} and {path}",
                    fix=f"rename {path.parent if path.name == '__init__.py' else path}",
                )
            found[kind] = path
    return found


def _member_paths(folder: Path) -> list[Path]:
    packages = (path / "__init__.py" for path in entries(folder) if path.is_dir())
    files = (path for path in entries(folder, "*.py") if path.name != "__init__.py")
    return sorted([*files, *(path for path in packages if path.is_file())])


def _load(interface: Interface, kind: str, path: Path) -> ModuleType:
    if path.is_relative_to(PACKAGE / interface):
        return importlib.import_module(f"pipeline.{interface}.{kind}")
    name = f"{PLUGINS}.{interface}.{kind}"
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"cannot load plugin file {path}")
    module = importlib.util.module_from_spec(spec)
    for package, places in ((PLUGINS, plugin_folders()), (f"{PLUGINS}.{interface}", folders(interface)[1:])):
        sys.modules.setdefault(package, ModuleType(package)).__path__ = [str(place) for place in places]
    sys.modules[name] = module
    try:
        with plugin_named(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # half of a module must not be found the next time
        raise
    return module


@contextmanager
def plugin_named(path: Path) -> Iterator[None]:
    """Give the file and line of whatever goes wrong in a plug-in's own code; a fault of this package keeps its traceback."""
    try:
        yield
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:
        if path.is_relative_to(PACKAGE):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = lines[-1] if lines else None
        if isinstance(error, SyntaxError) and error.filename:  # perhaps of a module beside it
            path, line = Path(error.filename), error.lineno
        first = next(iter(str(error).splitlines()), "")
        raise ConfigError(
            f"the plug-in {path.name} fails: {type(error).__name__}{f': {first}' if first else ''}",
            where=f"{path}, line {line}" if line else str(path),
            fix="correct the file, or take its folder out of PIPELINE_PLUGINS",
        ) from None


def member_class(interface: Interface, kind: str, *, where: str | None = None) -> type[Any]:
    """The member class of a kind; UnknownNameError with a suggestion when there is none."""
    files = member_files(interface)
    if kind not in files:
        raise unknown(interface[:-1], kind, files, where=where)
    module = _load(interface, kind, files[kind])
    base = getattr(importlib.import_module(f"pipeline.{interface}.base"), _BASES[interface])
    classes = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, base) and c.__module__ == module.__name__ and not inspect.isabstract(c)
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"the {interface[:-1]} {kind!r} must define exactly one concrete {_BASES[interface]}, found {len(classes)}",
            where=str(files[kind]),
            fix="define the class in this file; a helper that is no member has a name that begins with an underscore",
        )
    return classes[0]


def create(interface: Interface, member: Mapping[str, Any]) -> Any:
    """Instance of a member from its resolved spec ``{"name": .., "kind": .., "options": {..}}`` (see config.py)."""
    if not isinstance(member, Mapping):
        raise ConfigError(f"{member!r} is no member of {interface}", allowed="{name: ..., kind: ..., options: {...}}")
    kind, name = str(member["kind"]), str(member["name"])
    cls = member_class(interface, kind)
    with plugin_named(member_path(interface, kind)):
        return cls(name, validate(cls.options_model, member["options"], where=f"{interface}.{name}"))


def member_path(interface: Interface, kind: str) -> Path:
    """The source file of a kind."""
    files = member_files(interface)
    if kind not in files:
        raise unknown(interface[:-1], kind, files)
    return files[kind]
