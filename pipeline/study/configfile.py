"""Configuration files as plain values, read strictly: what YAML 1.1 would take for something else than is meant is refused.

Snakemake reads the same files with PyYAML's own loader. Everything that this one accepts means the same there: it takes
nothing more, it only refuses (a key given twice, ``010`` = 8, ``yes`` = true, ``1:30`` = 90, a date, aliases without end).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from pipeline.core.errors import ConfigError

DEEPEST = 32
"""Levels of nesting; a study has 6."""
LARGEST = 50_000
"""Values of a file with every alias written out; the shipped studies have fewer than 200."""
_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_ENCODING = "save it as UTF-8 (iconv -f {} -t UTF-8 FILE)"
_TAG = "tag:yaml.org,2002:"
LIKE = "write it as config.yaml is written"
_QUOTE = "put it in quotes: '{}'"
_DOUBTFUL: dict[str, tuple[re.Pattern[str], str, str]] = {
    "bool": (re.compile("(?!true|false).*", re.IGNORECASE), "true or false", "write true or false, or " + _QUOTE),
    "int": (re.compile("[-+]?0[0-9_]+|.*:.*"), "a number to another base", "write the decimal number without leading zeros"),
    "float": (re.compile(".*:.*"), "a number to the base 60", "write the decimal number, or " + _QUOTE),
    "timestamp": (re.compile(".*"), "a date", _QUOTE),
}
"""Kind of plain words -> which of them are refused, what they are taken for, what to write."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. ConfigError when it is not a readable file, not UTF-8, not YAML, not unambiguous."""
    text = _text(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _Walk(path).measure(node, 0)
        content = None if node is None else loader.construct_document(node)
    except RecursionError:
        _refuse(path, f"the values are nested more than {DEEPEST} deep", LIKE)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_problem(error)}") from None
    except ValueError as error:  # a number of more digits than Python reads, or a word that its own tag does not fit
        raise ConfigError(f"{path} holds a value that cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} does not hold a mapping", allowed="sections such as datasets, teachers, study")
    return content


def merge(base: dict[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """Deep-merge mappings, replace everything else (Snakemake's rule for several config files)."""
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
    return base


def read_files(files: Sequence[Path]) -> dict[str, Any]:
    """All files merged, the first being the base."""
    content: dict[str, Any] = {}
    for path in files:
        merge(content, read_yaml(path))
    return content


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file, and it is read more than once"
            raise ConfigError(f"{path} is {what}", allowed="YAML files, the first one like config.yaml")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if marked is not None:
        raise ConfigError(f"{path} is {marked} text", allowed="UTF-8", fix=_ENCODING.format(marked))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}",
            allowed="UTF-8",
            fix=f"{_ENCODING.format('LATIN1')}, if it is Latin-1",
        ) from None


def _problem(error: yaml.YAMLError) -> str:
    """The fault and its place on one line, without PyYAML's excerpt."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem or error.context} (line {mark.line + 1}, column {mark.column + 1})"
    return str(error).splitlines()[0]


def _refuse(path: Path, what: str, fix: str, node: yaml.Node | None = None) -> NoReturn:
    where = str(path) if node is None else f"{path}, line {node.start_mark.line + 1}"
    raise ConfigError(what, where=where, fix=fix)


class _Walk:
    """One visit of every node of a file: nesting, size with aliases written out, keys given twice, doubtful words."""

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[int, tuple[int, int]] = {}

    def measure(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        """Values in ``node`` with every alias written out, and how deep they are nested; it lies at ``depth`` itself."""
        if isinstance(node, yaml.ScalarNode):
            self._plain(node)
            return 1, 0
        size, height = self.known.get(id(node), (0, 0))
        if depth + height > DEEPEST:  # also what contains itself
            _refuse(self.path, f"the values are nested more than {DEEPEST} deep", LIKE, node)
        if size:
            return size, height
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            self._keys(node)
            parts = [part for pair in node.value for part in pair]
        measured = []
        for part in parts:
            measured.append(self.measure(part, depth + 1))
            size += measured[-1][0]
            if size > LARGEST:
                _refuse(self.path, f"with its aliases written out it has more than {LARGEST} values", LIKE, node)
        self.known[id(node)] = size + 1, 1 + max((inner for _, inner in measured), default=0)
        return self.known[id(node)]

    def _keys(self, node: yaml.MappingNode) -> None:
        """Refuse a key given twice: YAML forbids it, PyYAML takes the last one."""
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = (key.tag, key.value)
            if name in lines:
                _refuse(
                    self.path, f"the key {key.value!r} is given twice, first in line {lines[name]}", "keep one of them", key
                )
            lines[name] = key.start_mark.line + 1

    def _plain(self, node: yaml.ScalarNode) -> None:
        """Refuse a word without quotes that YAML 1.1 turns into something else than it says."""
        kind, text = node.tag.removeprefix(_TAG), node.value
        if node.style is not None or kind not in _DOUBTFUL or not _DOUBTFUL[kind][0].fullmatch(text):
            return
        meaning, fix = _DOUBTFUL[kind][1:]
        _refuse(self.path, f"{text} without quotes is {meaning} in YAML", fix.format(text), node)
