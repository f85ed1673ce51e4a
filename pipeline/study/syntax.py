"""What a source file defines, and what each definition refers to, read from its syntax tree; nothing is imported.

A *part* is what one name at the top of a file stands for: a function, a class, a value; the part NAMELESS is of the statements
that bind no name (``register(...)``). The digest of a part is of what it does: comments, layout, docstrings, and texts that
only people read (of errors, of ``print``, help and descriptions of options) do not change it; nor does the Python version
(``ast.dump`` and ``ast.unparse`` give other texts in 3.11, 3.12 and 3.13).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.core.errors import ConfigError

NAMELESS = "<nameless>"
_DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_VALUE = ast.Assign | ast.AnnAssign
_IMPORT = ast.Import | ast.ImportFrom
_NOT_READ = {"ctx", "kind", "type_comment", "type_ignores"}
"""Fields of nodes that follow from the rest, or change nothing (``u""``)."""
_FOR_PEOPLE = {"help", "metavar", "description"}
_DESCRIBED = {"Field", "add_argument", "add_parser", "ArgumentParser"}
"""Keywords whose values are texts that only people read, and the calls of pydantic and argparse that take them."""
_HELP = "HELP"
"""The text of a command in ``--help``."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The target of an import statement: a module (``name`` ""), or a name in it. ``level``: dots of a relative import."""

    module: str
    name: str = ""
    level: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """A name that a part refers to: ``attribute`` of it where only that is used, else ""; ``imported`` where it comes from."""

    name: str
    attribute: str = ""
    imported: Imported | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Digest of what a part does, the names that it refers to, and its own import statements. ``digest`` "": does nothing."""

    digest: str
    uses: tuple[Use, ...]
    imports: tuple[Imported, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A file: its parts, and what its imports bind.

    ``unused``: names that the file does not use itself though they are private, or values. Somebody may look them up by text.
    """

    parts: Mapping[str, Part]
    imports: Mapping[str, tuple[Imported, ...]]
    unused: tuple[str, ...]


def read_source(path: Path, without: tuple[str, ...] = ()) -> Source:
    """A file's parts; read once for every state of the file. ConfigError where it is not Python.

    ``without``: names of methods that are left out of its classes, with those that begin with such a name in underscores.
    """
    found = path.stat()
    return _read(path, without, (found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=4096)
def _read(path: Path, without: tuple[str, ...], state: tuple[int, int]) -> Source:  # noqa: ARG001 - a key of the cache
    statements: dict[str, list[ast.stmt]] = {NAMELESS: []}
    imports: dict[str, list[Imported]] = {}
    for statement in _running(_tree(path).body):
        if isinstance(statement, _IMPORT):
            _bind(statement, imports)
            continue
        names = _bound(statement)
        if not names or not isinstance(statement, _VALUE | _DEFINITION):  # register(...), try: import a
            names.append(NAMELESS)
            for node in ast.walk(statement):
                if isinstance(node, _IMPORT):
                    _bind(node, imports)
        for name in names:
            if name != _HELP or path.parent.name != "commands":
                statements.setdefault(name, []).append(statement)
    readers = {name: _Reader(found, without) for name, found in statements.items()}
    parts = {name: reader.part(statements, imports) for name, reader in readers.items()}
    used = {use.name for name, part in parts.items() for use in part.uses if use.name != name}
    loose = (name for name, found in statements.items() if name[0] == "_" or isinstance(next(iter(found), None), _VALUE))
    unused = tuple(name for name in loose if name not in used)
    return Source(parts, {name: tuple(found) for name, found in imports.items()}, unused)


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{path.name} is not Python ({error})", where=f"{path}{line}", fix="correct the file") from None


def _running(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run: no texts alone, and of ``if TYPE_CHECKING`` and ``if __name__ == ...`` the other branch."""
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, ast.If) and _never(statement.test):
            yield from _running(statement.orelse)
        else:
            yield statement


def _never(test: ast.expr) -> bool:
    """Return whether a condition is false in a command: it is of type checkers, or of a file that is run as a program."""
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__"
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def _bound(statement: ast.stmt) -> list[str]:
    """Names at the top of a file that a statement binds (in a ``try`` or ``for`` perhaps more: then too much counts)."""
    if isinstance(statement, _DEFINITION):
        return [statement.name]
    roots: list[ast.AST] = [statement]
    if isinstance(statement, _VALUE):
        roots = list(statement.targets) if isinstance(statement, ast.Assign) else [statement.target]
    nodes = [node for root in roots for node in ast.walk(root)]
    names = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return list(dict.fromkeys(names + [node.name for node in nodes if isinstance(node, _DEFINITION)]))


def _bind(statement: ast.Import | ast.ImportFrom, imports: dict[str, list[Imported]]) -> None:
    """Add to ``imports`` what an import statement binds. ``import a.b`` binds ``a``, and all of a.b counts."""
    for alias in statement.names:
        if isinstance(statement, ast.Import):
            imports.setdefault(alias.asname or alias.name.partition(".")[0], []).append(Imported(alias.name))
        elif statement.module != "__future__":
            found = Imported(statement.module or "", alias.name, statement.level)
            imports.setdefault(alias.asname or alias.name, []).append(found)


class _Reader:
    """Walks statements: a text that is equal for equal behaviour, the names that they read, what they import themselves."""

    def __init__(self, statements: list[ast.stmt], without: tuple[str, ...]):
        self._names: set[tuple[str, str]] = set()
        self._imports: dict[str, list[Imported]] = {}
        self._without, self._helpers = without, tuple(f"_{name}_" for name in without)
        self._text: list[str] = []
        self._for_people = False
        self._described: set[int] = set()
        for statement in statements:
            self.read(statement)

    def part(self, names: Collection[str], imports: Mapping[str, list[Imported]]) -> Part:
        """The part, in a file with these names and imports."""
        text = "".join(self._text)
        uses = [Use("*", "", imported) for imported in imports.get("*", ())]
        for name, attribute in sorted(self._names):
            bound = (*self._imports.get(name, ()), *imports.get(name, ()))
            uses += [Use(name, attribute, imported) for imported in bound]
            uses += [Use(name)] if name in names else []
        own = tuple(imported for found in self._imports.values() for imported in found)
        return Part(hashlib.sha256(text.encode()).hexdigest()[:16] if text else "", tuple(dict.fromkeys(uses)), own)

    def read(self, node: object) -> None:
        """Add a node, a list of nodes, or a field that is none."""
        if isinstance(node, ast.Name):
            self._use(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            self._use(node.value.id, node.attr)
        elif isinstance(node, ast.Constant):
            text = self._for_people and isinstance(node.value, str)
            self._text.append("''," if text else f"{node.value!a},")  # repr knows other characters in other versions
        elif isinstance(node, ast.AST):
            self._node(node)
        elif isinstance(node, list):
            self._list(node)
        else:
            self._text.append(f"{node!a},")

    def _list(self, nodes: list[object]) -> None:
        self._text.append("[")
        for node in _running(nodes) if nodes and isinstance(nodes[0], ast.stmt) else nodes:  # type: ignore[arg-type]
            self.read(node)
        self._text.append("]")

    def _node(self, node: ast.AST) -> None:
        if isinstance(node, _IMPORT):
            _bind(node, self._imports)  # what comes from there is said by its use: code that only moves is the same code
            return
        before = self._for_people
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in _DESCRIBED:
            self._described |= {id(keyword) for keyword in node.keywords if keyword.arg in _FOR_PEOPLE}
        self._for_people = _is_message(node, before) or id(node) in self._described
        self._text.append(type(node).__name__ + "(")
        for name in node._fields:
            value = getattr(node, name, None)
            if name not in _NOT_READ and value is not None and value != []:
                if isinstance(node, ast.ClassDef) and name == "body":
                    value = [n for n in value if not (isinstance(n, ast.FunctionDef) and self._left_out(n.name))]
                elif isinstance(node, ast.JoinedStr):  # 3.12.1 adds an empty text behind f"{x:{width}}"
                    value = [n for n in value if not (isinstance(n, ast.Constant) and (self._for_people or n.value == ""))]
                self._text.append(f"{name}=")
                self.read(value)
        self._text.append(")")
        self._for_people = before

    def _left_out(self, name: str) -> bool:
        return name in self._without or name.startswith(self._helpers)

    def _use(self, name: str, attribute: str = "") -> None:
        self._names.add((name, attribute))
        self._text.append(f"{name}.{attribute},")


def _is_message(node: ast.AST, inside: bool) -> bool:
    """Return whether texts in a node are for people: an error's, what is printed, help and descriptions of options."""
    if isinstance(node, ast.Raise):
        return isinstance(node.exc, ast.Call)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
        return True
    return inside
