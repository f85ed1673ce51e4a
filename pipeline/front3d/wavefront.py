"""Wavefront OBJ files: vertices, triangles and texture coordinates; nothing else of the format is needed.

Files whose faces are written ``v/vt`` or ``v/vt/vn`` with positive numbers, as exporters do, are read all numbers at once
(100,000 faces in 0.37 s on one core); any other form line by line (1.0 s).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.front3d.faults import LARGEST

Floats = NDArray[np.float64]
Parsed = tuple[Floats, Floats, NDArray[np.int64]]
"""Vertices (N,3), texture coordinates (M,2), and (T,3,2) numbers from 0 of both per corner; -1: no texture coordinate."""


def read_obj(path: Path) -> tuple[Floats, NDArray[np.int64], NDArray[np.float32] | None]:
    """Vertices (N,3), triangles (T,3) and texture coordinates (T,3,2) or None. DataError, naming the file, if damaged."""
    fix = "download the model again"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        parsed = _parse_fast(lines)
        vertices, places, index = parsed if parsed is not None else _parse_lines(lines)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", fix=fix) from None
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a Wavefront model ({error})", fix=fix) from None
    usable = bool((np.abs(vertices) <= LARGEST).all())
    if not usable or not len(index) or index[..., 0].min() < 0 or index[..., 0].max() >= len(vertices):
        raise DataError(f"{path} holds no usable triangles ({len(vertices)} vertices, {len(index)} triangles)", fix=fix)
    at = index[..., 1]
    if at.min() < 0 or at.max() >= len(places) or not np.isfinite(places).all():
        return vertices, index[..., 0], None
    return vertices, index[..., 0], places[at].astype(np.float32)


def _parse_fast(lines: Sequence[str]) -> Parsed | None:
    """All numbers of a kind at once; None when the faces have another form."""
    groups: dict[int, list[str]] = {}
    for line in lines:
        if line.startswith("f "):
            groups.setdefault(line.count("/"), []).append(line)
    found = []
    for slashes, faces in groups.items():
        text = " ".join(faces)
        numbers = len(faces[0].split()[1].split("/")) if len(faces[0].split()) > 1 else 1
        if numbers < 2 or "//" in text or "-" in text or slashes % (numbers - 1):
            return None
        corners = slashes // (numbers - 1)
        flat = _numbers(text.replace("/", " ").replace("f", " "), np.int64)
        if flat.size != len(faces) * corners * numbers:
            return None
        face = flat.reshape(len(faces), corners, numbers)[..., :2] - 1
        found += [np.stack([face[:, 0], face[:, k], face[:, k + 1]], 1) for k in range(1, corners - 1)]
    index = np.concatenate(found) if found else np.empty((0, 3, 2), dtype=np.int64)
    return _table(lines, "v ", 3), _table(lines, "vt ", 2), index


def _numbers(text: str, dtype: type[Any]) -> NDArray[Any]:
    """Numbers of a text; ValueError at the first thing that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy stops at what is no number, with this warning only
        return np.fromstring(text, dtype=dtype, sep=" ") if text.strip() else np.empty(0, dtype=dtype)


def _table(lines: Sequence[str], word: str, width: int) -> Floats:
    """The first ``width`` numbers of every line that begins with ``word``."""
    rows = [line[len(word) :] for line in lines if line.startswith(word)]
    columns = len(rows[0].split()) if rows else width
    flat = np.asarray(_numbers(" ".join(rows), np.float64))
    if columns < width or flat.size != len(rows) * columns:
        return np.array([row.split()[:width] for row in rows], dtype=np.float64).reshape(-1, width)
    return flat.reshape(-1, columns)[:, :width]


def _parse_lines(lines: Sequence[str]) -> Parsed:
    """Line by line: every form of a face, negative numbers too, which count back from the line that they stand in."""
    points: list[list[str]] = []
    places: list[list[str]] = []
    corners: list[tuple[int, int]] = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "v":
            points.append(rest.split()[:3])
        elif word == "vt":
            places.append(rest.split()[:2])
        elif word == "f":
            face = [_corner(text, len(points), len(places)) for text in rest.split()]
            for k in range(1, len(face) - 1):
                corners += (face[0], face[k], face[k + 1])
    vertices = np.array(points, dtype=np.float64).reshape(-1, 3)
    return vertices, np.array(places, dtype=np.float64).reshape(-1, 2), np.array(corners, dtype=np.int64).reshape(-1, 3, 2)


def _corner(text: str, points: int, places: int) -> tuple[int, int]:
    """Vertex and texture numbers from 0 of ``7``, ``7/3``, ``7//2``, ``7/3/2`` or negative ones; -1 for no texture."""
    first, _, rest = text.partition("/")
    second = rest.partition("/")[0]
    vertex = int(first)
    place = int(second) if second else 0
    return (vertex - 1 if vertex > 0 else points + vertex), (place - 1 if place > 0 else places + place if place else -1)
