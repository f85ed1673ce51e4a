"""EmbodiedScan's frame lists (``embodiedscan_infos_*.pkl``), read without running anything that a pickle asks for.

A pickle is a program; ``pickle.load`` runs it. Here every global that a file names is looked up in a table of inert stand-ins:
built-in containers and numbers, and numpy arrays of plain numbers, which are rebuilt from their bytes. Any other name ends
the reading with a message that says what was refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.conventions import checked_id
from pipeline.errors import DataError
from pipeline.scannet.reading import read_bytes

PREFIX = "scannet/"
"""Scans of ScanNet have this prefix in ``sample_idx``; the others are 3RScan's and Matterport3D's."""


class _Type:
    """Stands for ``numpy.dtype``: remembers the name of the number format, which must be a plain one."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any):
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def numpy(self) -> np.dtype[Any]:
        """The numpy type; ValueError unless it is a plain number."""
        if self.code[:1] not in "biuf" or not self.code[1:].isdigit() or self.order not in "<>|=":
            raise ValueError(f"array of {self.code!r}")
        return np.dtype(("" if self.order == "|" else self.order) + self.code)


class _Array:
    """Stands for an array until its state arrives; only bytes become numbers."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.value = _numbers(data, kind, shape, "F" if fortran else "C")


class _Function:
    """A callable without attributes, so that a file cannot change it."""

    __slots__ = ("_name",)

    _name: str

    def __init__(self, name: str):
        object.__setattr__(self, "_name", name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a function")

    def __call__(self, *arguments: Any) -> Any:
        return _CALLS[self._name](*arguments)


def _numbers(data: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray[Any, Any]:
    if not isinstance(data, bytes | bytearray) or not isinstance(kind, _Type) or order not in ("C", "F"):
        raise ValueError("array that is not made of bytes")
    return np.frombuffer(data, dtype=kind.numpy()).reshape(shape, order=order)


def _scalar(kind: Any, data: Any) -> Any:
    return _numbers(data, kind, ()).item()


def _latin1(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("text in an encoding other than latin1")
    return text.encode("latin1")


def _bytes(*arguments: Any) -> bytes:
    """``bytes``, but never a number of zeros: a short file could ask for all memory."""
    if any(isinstance(argument, int) for argument in arguments):
        raise ValueError("bytes of a given length")
    return bytes(*arguments)


def _bytearray(*arguments: Any) -> bytearray:
    return bytearray(_bytes(*arguments))


def _uncalled(*_: Any) -> Any:
    """``numpy.ndarray`` is named by array pickles, as an argument; none calls it."""
    raise ValueError("numpy.ndarray is called")


_CALLS: Mapping[str, Any] = {
    **{"ndarray": _uncalled, "array": _Array, "numbers": _numbers, "scalar": _scalar},
    **{"latin1": _latin1, "bytes": _bytes, "bytearray": _bytearray},
}
_NUMPY_NAMES = {"_reconstruct": _Function("array"), "_frombuffer": _Function("numbers"), "scalar": _Function("scalar")}
_ALLOWED: Mapping[tuple[str, str], Any] = {
    **{("builtins", t.__name__): t for t in (bool, complex, dict, float, frozenset, int, list, set, str, tuple)},
    **{
        (f"numpy.{core}.multiarray", name): _NUMPY_NAMES[name]
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _NUMPY_NAMES["_frombuffer"] for core in ("core", "_core")},
    **{("builtins", name): _Function(name) for name in ("bytes", "bytearray")},
    ("numpy", "ndarray"): _Function("ndarray"),
    ("numpy", "dtype"): _Type,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _Function("latin1"),
}


class _Refused(pickle.UnpicklingError):
    """A file names something that is not in the table."""


class _Restricted(pickle.Unpickler):
    """An unpickler that looks nothing up outside the table."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a global."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "__builtin__" and ("builtins", name) in _ALLOWED:  # written by Python 2
            return _ALLOWED["builtins", name]
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, identifier: Any) -> Any:
        """References outside the file are refused."""
        raise _Refused("a reference outside the file")


def restricted_load(data: bytes, where: str) -> Any:
    """Content of a pickle made of containers, numbers, text and numeric arrays (as ``numpy.ndarray``; see ``plain``)."""
    try:
        return plain(_Restricted(io.BytesIO(data)).load())
    except _Refused as refused:
        raise DataError(
            f"the pickle asks for {refused}, which is refused: it could run code of whoever wrote the file",
            where=where,
            allowed="containers, numbers, text and numpy arrays of numbers",
            fix="get the file from EmbodiedScan's authors, or leave the option frame_lists out",
        ) from None
    except (
        pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, KeyError, IndexError, MemoryError,
        OverflowError, UnicodeDecodeError, RecursionError,
    ) as error:  # fmt: skip
        raise DataError(f"the pickle cannot be read ({error})", where=where, fix="get the file again") from None


def plain(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Content with stand-ins replaced by the arrays they stand for.

    What a file names twice is replaced once: lists that hold each other many times over would otherwise never end.
    """
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _Type | _Function | type):
        raise ValueError("a number format, class or function outside an array")
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return value
    done = {} if done is None else done
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: plain(item, done) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(plain(item, done) for item in value)
    return done[id(value)]


def read_frame_lists(paths: Iterable[Path], wanted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Ordered frame ids of the ``wanted`` scans that the files list. DataError for other content or unsafe ids."""
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        fix = "get it from EmbodiedScan's authors, or leave the option frame_lists out"
        content = restricted_load(read_bytes(path, "the frame list", fix=fix), str(path))
        entries = content.get("data_list") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError("the frame list has no data_list", where=str(path), allowed="embodiedscan_infos_*.pkl")
        for number, entry in enumerate(entries):
            _add(found, entry, wanted, f"{path}, data_list[{number}]")
    return found


def _add(found: dict[str, tuple[str, ...]], entry: Any, wanted: frozenset[str], where: str) -> None:
    try:
        name, images = entry["sample_idx"], entry["images"]
        if not name.startswith(PREFIX):
            return
        scene = checked_id(name.removeprefix(PREFIX), what="scene id", where=where)
        stems = [PurePosixPath(image["img_path"]).stem for image in images]
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"an entry of the frame list is malformed ({error!r})", where=where, fix="get the file again") from None
    if scene not in wanted:
        return
    ids = tuple(checked_id(stem, what="frame id", where=where) for stem in stems)
    if scene in found or len(set(ids)) != len(ids):
        raise DataError(f"{scene} or one of its frames comes twice in the frame lists", where=where, fix="correct the option")
    found[scene] = ids
