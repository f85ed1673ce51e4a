"""Annotated objects of a scan: axis alignment, segments and aggregation to boxes.

Box of an object: minimum and maximum of its vertices after axis alignment, [cx,cy,cz,dx,dy,dz] in metres. Every aggregated
object counts, walls and floor too, under the ``objectId`` that ScanRefer and the others use. One released scan lists objects
twice: objects may share segments, each gets the box of its own, and an exact repetition counts once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets.scannet.labels import Labels
from pipeline.datasets.scannet.reading import AGAIN, read_json_object, read_text
from pipeline.scenes.types import SceneObject

Floats = NDArray[np.float64]
FARTHEST_M = 10_000.0
"""A camera this far from the origin is not in the scan: a damaged number, or lost tracking."""
_SCAN_ID = re.compile(r"scene\d{4}_\d{2}")


@dataclass(frozen=True, slots=True)
class Instances:
    """``objects`` by id; ``unknown`` raw names that the label table does not have, sorted."""

    objects: tuple[SceneObject, ...]
    unknown: tuple[str, ...] = ()


def read_alignment(path: Path) -> Floats | None:
    """The 4x4 ``axisAlignment`` of ``<scene>.txt``; None where the file has no such line (scans of the split test)."""
    text = read_text(path, "the scan's text file", fix="download it (files <scene>.txt of the release)")
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            return _alignment(value, path)
    return None


def _alignment(value: str, path: Path) -> Floats:
    try:
        matrix = np.array([float(word) for word in value.split()]).reshape(4, 4)
    except ValueError:
        raise DataError("axisAlignment is not 16 numbers", where=str(path), fix=AGAIN) from None
    if not is_rigid(matrix):
        raise DataError("axisAlignment is not a rotation and a translation", where=str(path), fix=AGAIN)
    return matrix


def is_rigid(matrix: Floats, tolerance: float = 1e-2) -> bool:
    """Return whether a 4x4 matrix is finite and a rotation with a translation of less than ``FARTHEST_M``."""
    if not np.isfinite(matrix).all() or np.abs(matrix[:3, 3]).max() >= FARTHEST_M:
        return False
    rotation = matrix[:3, :3]
    straight = np.abs(rotation @ rotation.T - np.eye(3)).max() < tolerance
    return bool(straight and np.linalg.det(rotation) > 0 and np.abs(matrix[3] - (0, 0, 0, 1)).max() < tolerance)


def aligned(points: Floats, alignment: Floats) -> Floats:
    """Points (N,3) in the axis-aligned frame."""
    moved: Floats = points @ alignment[:3, :3].T + alignment[:3, 3]
    return moved


def box_of(low: Floats, high: Floats) -> Floats:
    """[cx,cy,cz,dx,dy,dz] (...,6) of corners (...,3), to a micrometre."""
    found: Floats = np.round(np.concatenate([(low + high) / 2, high - low], axis=-1), 6)
    return found


def read_instances(folder: Path, scene: str, vertices: Floats, labels: Labels) -> Instances:
    """Objects of a scan with ``vertices`` (N,3), aligned. DataError when the files do not fit together."""
    segments_path = folder / f"{scene}_vh_clean_2.0.010000.segs.json"
    path = folder / f"{scene}.aggregation.json"
    names, low, high = _segment_corners(segments_path, vertices)
    groups = _groups(path, scene)
    objects: dict[int, SceneObject] = {}
    unknown: set[str] = set()
    for number, group in enumerate(groups):
        where = f"{path}, segGroups[{number}]"
        object_id, label, members = _group(group, where)
        rows = _rows(names, members, object_id, where, segments_path)
        box = box_of(low[rows].min(0), high[rows].max(0)).tolist()
        found = SceneObject(object_id, label, tuple(box), labels.attributes(label))
        if objects.setdefault(object_id, found) != found:
            raise DataError(f"objectId {object_id} comes twice, for different objects", where=where, fix=AGAIN)
        if label not in labels:
            unknown.add(label)
    return Instances(tuple(objects[i] for i in sorted(objects)), tuple(sorted(unknown)))


def _segment_corners(path: Path, vertices: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Sorted segment numbers (S,) and the corners (S,3) of their vertices."""
    content = read_json_object(path, "the segment file", fix="download it (files *_vh_clean_2.0.010000.segs.json)")
    try:
        segments = np.asarray(content.get("segIndices"))
    except ValueError:
        segments = np.empty(0)
    if segments.ndim != 1 or segments.dtype.kind not in "iu":
        raise DataError("segIndices is not a list of whole numbers", where=str(path), fix=AGAIN)
    if len(segments) != len(vertices):
        raise DataError(
            f"{len(segments)} segment numbers for a mesh of {len(vertices)} vertices",
            where=str(path),
            allowed="one per vertex of <scene>_vh_clean_2.ply",
            fix="mesh and segments are of different scans or versions: download both again",
        )
    order = np.argsort(segments, kind="stable")
    names, starts = np.unique(segments[order], return_index=True)
    return names, np.minimum.reduceat(vertices[order], starts), np.maximum.reduceat(vertices[order], starts)


def _groups(path: Path, scene: str) -> list[Any]:
    content = read_json_object(path, "the aggregation file", fix="download it (files <scene>.aggregation.json)")
    groups = content.get("segGroups")
    if not isinstance(groups, list) or not groups:
        raise DataError("segGroups is not a list of objects", where=str(path), fix=AGAIN)
    named = _SCAN_ID.findall(str(content.get("sceneId", "")))
    if named and scene not in named:
        raise DataError(f"the aggregation file is of scan {named[0]!r}", where=str(path), fix="download that of this scan")
    return groups


def _group(group: Any, where: str) -> tuple[int, str, list[int]]:
    """objectId, label and segments of a group."""
    if not isinstance(group, dict):
        raise DataError("a group is not an object", where=where, fix=AGAIN)
    object_id, label, members = group.get("objectId"), group.get("label"), group.get("segments")
    if isinstance(object_id, bool) or not isinstance(object_id, int) or object_id < 0:
        raise DataError(f"objectId is {object_id!r}", where=where, allowed="a whole number, 0 or more", fix=AGAIN)
    if not isinstance(label, str) or not label.strip():
        raise DataError(f"label of object {object_id} is {label!r}", where=where, allowed="a name", fix=AGAIN)
    if not isinstance(members, list) or not members or not all(type(m) is int for m in members):
        raise DataError(f"object {object_id} has no segments, or not whole numbers", where=where, fix=AGAIN)
    return object_id, label.strip(), members


def _rows(names: NDArray[np.int64], members: list[int], object_id: int, where: str, path: Path) -> NDArray[np.int64]:
    """Rows of an object's segments."""
    wanted = np.asarray(members)
    rows = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    missing = wanted[names[rows] != wanted].tolist()
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"object {object_id} names {len(missing)} segments that the scan does not have: {listed}",
            where=f"{where}; segments: {path}",
            fix="the two files are of different scans or meshes: download both again",
        )
    return rows
