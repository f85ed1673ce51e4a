"""The code that decides a result: what a command and its members refer to, directly or through others, and a digest of it.

From the syntax trees of the files as they lie there; nothing is imported. Within the package every name at the top of a file
counts for itself, so that the features of one teacher do not depend on another teacher, nor a training on how features are
written. What belongs to a plug-in (its file, and modules that it imports from outside of installed packages) counts whole.

A use of a name by its text (``getattr``, a kind in config.yaml) cannot be seen. So specs.py gives the members of a cell, and a
name that no file visibly uses counts for whoever imports its file at all (``Source.unused``).
tests/unit/study/test_closure.py runs every command and compares what ran with what counted.
"""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
from collections.abc import Collection, Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path

from pipeline.core.registry import PACKAGE, PLUGINS, plugin_folders
from pipeline.study.syntax import NAMELESS, Imported, Source, read_source

CHANGES_NO_RESULT = (
    # What a user sees while a command runs, or instead of a result.
    "__init__",  # the version's number
    "core.errors",
    "core.faults",
    "core.installed",
    "core.progress",
    "core.screen",
    # How files are written whole and by one process, where they lie, and whether finished ones are kept: not what is in them.
    # Another path is another output, which Snakemake makes.
    "core.files",
    "core.locks",
    "core.finished",
    "study.paths",
    "core.provenance.run_record",  # times, memory and machine, beside a result
    # Which processor, and worker processes whose results come in the order of their jobs.
    "core.runtime.device",
    "core.workers",
    # What runs before a command: every option that it gets is in its spec, with its value.
    "__main__",
    "core.options",
    "core.registry",  # which class has a name; the classes count
    "study.config",
    "study.configfile",
    "study.foresight",
    "study.specs",
    "study.closure",
    "study.syntax",
    # `prepare` compares finished scenes with the annotations: it may refuse them, and notes what is left out. Benchmarks read
    # the annotations again when they are used, and would otherwise decide whether all scenes are rendered anew.
    "benchmarks._prepared",
    # Commands for people: no rule runs them.
    "doctor",
    "features.inspect",
    "speed",
    "teachers.vggt.flops",  # what `doctor` and `bench` estimate with
    "commands.bench",
    "commands.check",
    "commands.doctor",
    "commands.features",
    "commands.schema",
    "commands.submission",
)
"""Modules, packages (with all in them) and names in modules, below `pipeline`: no digest holds them, nothing leads through."""

Place = tuple[Path, str]
"""A part of a file by its name; "" for all parts."""
WHOLE = ""


_IMPORTED = re.compile(r"^ *from [\w.]+ import (\([^)]*\)|.*)", re.MULTILINE)
_WORD = re.compile(r"\w+")


class Closure:
    """Closures over the files as they are when they are asked for first; what one found is not looked for again.

    ``of``: the folders in whose classes the methods ``without`` of a question do not count.
    """

    def __init__(self, of: Collection[Path] = ()):
        self._scored = cache(lambda path: any(folder in path.parents for folder in of))
        self._source = cache(read_source)
        self._step = cache(self._look)
        self._resolve = cache(self._bound)
        self._module = cache(find_module)

    def digest(self, starts: Iterable[Place], without: tuple[str, ...] = ()) -> str:
        """16 hex digits that change when the behaviour of something in the closure of ``starts`` does."""
        texts = {self._step(place, without)[0] for place in self.places(starts, without)} - {""}
        return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:16]

    def places(self, starts: Iterable[Place], without: tuple[str, ...] = ()) -> set[Place]:
        """All parts that the given ones refer to, directly or through others, with themselves."""
        waiting, found = list(starts), set[Place]()
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                waiting += self._step(place, without)[1]
        return found

    @cached_property
    def _asked(self) -> set[str]:
        """All names that files of the package import."""
        texts = (path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
        return {name for text in texts for names in _IMPORTED.findall(text) for name in _WORD.findall(names)}

    def _look(self, place: Place, without: tuple[str, ...]) -> tuple[str, tuple[Place, ...]]:
        """Return what a part is, as text, and where it leads."""
        path, name = place
        source = self._read(path, without)
        if name == WHOLE:
            return "", tuple((path, one) for one in source.parts)
        part = source.parts[name]
        text, leads = [name, part.digest], list(_beginnings(path))
        if name == NAMELESS:
            leads += [(path, one) for one in source.unused if one[0] == "_" or one not in self._asked]
        for use in part.uses:
            own = [(path, use.name)], ""
            places, beyond = own if use.imported is None else self._resolve(path, use.imported, use.attribute)
            places = [found for found in places if counts(found)]
            # The digests of what is meant and not its module's name: code that only moves is the same code.
            text.append(f"{use.name}.{use.attribute}={beyond}{self._digests(places, without)}")
            leads += places
        imports = *part.imports, *(imported for bound in source.imports.values() for imported in bound)
        run = [self._module(path, imported.module, imported.level) for imported in imports]
        leads += [_first(module) for module in run if module]
        return " ".join(text) if part.digest else "", tuple(found for found in dict.fromkeys(leads) if counts(found))

    def _digests(self, places: Iterable[Place], without: tuple[str, ...]) -> str:
        found = [(self._read(path, without).parts, name) for path, name in places]
        return ",".join(parts[one].digest for parts, name in found for one in ([name] if name else parts))

    def _read(self, path: Path, without: tuple[str, ...] = ()) -> Source:
        return self._source(path, without if self._scored(path) else ())

    def _bound(self, path: Path, imported: Imported, attribute: str) -> tuple[list[Place], str]:
        """The parts that an import in the file ``path`` binds (of them or, of a module, its ``attribute``); of installed
        packages none, but the name."""
        module = self._module(path, imported.module, imported.level)
        if module is None:
            return [], f"{imported.module}.{imported.name}"
        if not imported.name:
            return [(module, WHOLE)], ""
        places = self._member(module, imported.name)
        if attribute:
            whole = [place for place in places if place[1] == WHOLE and place[0] != module]
            places = [place for place in places if place not in whole]
            places += [place for file, _ in whole for place in self._member(file, attribute)]
        return places, ""

    def _member(self, module: Path, name: str) -> list[Place]:
        """A name of a module: a part of it, what it imported under this name, or a module below it. All of the module where
        that does not tell, and of a plug-in's."""
        source, ours = self._read(module), _in_package(module)
        bound = [
            i for i in source.imports.get(name, ()) if self._module(module, i.module, i.level) != module
        ]  # from . import x
        found = [place for imported in bound for place in self._resolve(module, imported, "")[0]]
        if ours and name in source.parts:
            found.append((module, name))
        below = None if found or module.name != "__init__.py" else self._module(module, name, 1)
        found += [(below, WHOLE)] if below else []
        return found if found and ours else [*found, (module, WHOLE)]


def counts(place: Place) -> bool:
    """Return whether a part can change a result."""
    path, name = place
    if not _in_package(path):
        return True
    return not _listed(path) and f"{dotted(path)}.{name}" not in CHANGES_NO_RESULT


@cache
def _listed(path: Path) -> bool:
    module = dotted(path)
    return any(module == entry or module.startswith(f"{entry}.") for entry in CHANGES_NO_RESULT)


@cache
def _in_package(path: Path) -> bool:
    return path.is_relative_to(PACKAGE)


@cache
def dotted(path: Path) -> str:
    """Name of a file of the package below `pipeline`, as CHANGES_NO_RESULT spells it."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def find_module(path: Path, name: str, level: int) -> Path | None:
    """The file of a module that the file ``path`` imports; None for installed packages and the standard library."""
    parts = name.split(".") if name else []
    if level:
        return _file(path.parents[level - 1], parts)
    if parts[0] == PACKAGE.name:
        return _file(PACKAGE, parts[1:])
    if _in_package(path):
        return None
    if parts[0] == PLUGINS:
        found = [_file(folder, parts[1:]) for folder in plugin_folders()]
    else:
        found = [_file(Path(folder), parts) for folder in sys.path if not _installed(Path(folder))]
    return next(filter(None, found), None)


def _file(folder: Path, parts: Sequence[str]) -> Path | None:
    """The file of a module below a folder: NAME/__init__.py or NAME.py."""
    base = folder.joinpath(*parts)
    return next((_one(file) for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()), None)


@cache
def _one(path: Path) -> Path:
    """The same object for equal paths: comparing them takes a third of the time otherwise."""
    return path


def _installed(folder: Path) -> bool:
    """Return whether a folder is of the standard library or of installed packages."""
    known = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return folder in known or bool({"site-packages", "dist-packages", "lib-dynload"} & set(folder.parts))


@cache
def _beginnings(path: Path) -> tuple[Place, ...]:
    """Return what runs when a module is imported: its own statements that bind no name, and those of the packages it is in."""
    packages = (folder / "__init__.py" for folder in path.parents if _in_package(folder))
    return _first(path), *map(_first, packages if _in_package(path) else ())


def _first(path: Path) -> Place:
    return path, NAMELESS if _in_package(path) else WHOLE
