"""Vertices of a released mesh (``_vh_clean_2.ply``, binary little-endian), without a mesh library.

Mask3D masks and segments count vertices in file order, so nothing may merge, drop or sort them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets.scannet.reading import AGAIN, read_bytes

_TYPES = {
    **{
        "char": "i1",
        "int8": "i1",
        "uchar": "u1",
        "uint8": "u1",
        "short": "<i2",
        "int16": "<i2",
        "ushort": "<u2",
        "uint16": "<u2",
    },
    **{"int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4"},
    **{"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}
_END = b"end_header\n"
_TRIANGLE_BYTES = 1 + 3 * 4
"""A face of the release: a uchar count and three 4-byte vertex numbers."""

Elements = dict[str, tuple[int, list[str]]]


def read_vertices(path: Path) -> NDArray[np.float64]:
    """Vertex positions (N,3) in metres, in file order. DataError for anything but a whole mesh with faces."""
    data = read_bytes(path, "the mesh", fix="download it (files *_vh_clean_2.ply of the release)")
    elements, start = _header(data, path)
    count, properties = elements.get("vertex", (0, []))
    faces, _ = elements.get("face", (0, []))
    if not count or not faces or next(iter(elements)) != "vertex":
        raise _fault(
            path, f"the mesh has {count} vertices and {faces} faces", allowed="the release's mesh: vertices, then faces"
        )
    layout = _layout(properties, path)
    needed = start + count * layout.itemsize + faces * _TRIANGLE_BYTES
    if len(data) < needed:
        raise _fault(path, f"the mesh ends early: {len(data)} bytes, {needed} are needed for {count} vertices, {faces} faces")
    vertices = np.frombuffer(data, dtype=layout, count=count, offset=start)
    with np.errstate(invalid="ignore"):  # a damaged file may hold signalling NaNs: the check below answers them
        points = np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], axis=1)
    if not np.isfinite(points).all():
        raise _fault(path, "a vertex of the mesh is not finite")
    return points


def _header(data: bytes, path: Path) -> tuple[Elements, int]:
    """Elements in file order with their number and property lines, and where the data begins."""
    end = data.find(_END, 0, 65_536)
    if not data.startswith(b"ply") or end < 0:
        raise _fault(path, "the mesh is not a PLY file")
    elements: Elements = {}
    for line in data[:end].decode("ascii", errors="replace").splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"] and words[1:2] != ["binary_little_endian"]:
            raise _fault(path, f"the mesh has format {' '.join(words[1:])}", allowed="binary_little_endian, as released")
        if words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            elements[words[1]] = (int(words[2]), [])
        elif words[:1] == ["property"] and elements:
            list(elements.values())[-1][1].append(line)
    return elements, end + len(_END)


def _layout(properties: list[str], path: Path) -> np.dtype[np.void]:
    """Record of one vertex."""
    fields = [tuple(line.split()[1:]) for line in properties]
    known = all(len(field) == 2 and field[0] in _TYPES for field in fields)
    names = [" ".join(field[1:]) for field in fields]
    if not known or not {"x", "y", "z"} <= set(names) or len(set(names)) != len(names):
        raise _fault(path, f"the vertices have properties {names}", allowed="numbers, among them x, y and z")
    return np.dtype([(name, _TYPES[kind]) for kind, name in fields])


def _fault(path: Path, what: str, *, allowed: str | None = None) -> DataError:
    return DataError(what, where=str(path), allowed=allowed, fix=AGAIN)
