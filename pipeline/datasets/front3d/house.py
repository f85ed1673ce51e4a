"""A house file of 3D-FRONT: furniture, meshes of the building, and rooms that place both.

Keys that are read: ``furniture[{uid, jid, title, category, valid}]``, ``mesh[{uid, xyz, faces, type, material}]``,
``material[{uid, jid, texture, color}]``,
``scene.room[{type, instanceid, children[{ref, pos, rot, scale, instanceid}]}]``. Coordinates are metres, y up; ``rot`` is a
quaternion x, y, z, w; a child is placed by scale, then rotation, then translation (tool box: ``scripts/utils.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets.front3d.faults import LARGEST, Tally
from pipeline.datasets.front3d.finish import Material, read_materials
from pipeline.scenes.conventions import ID_PATTERN, checked_id

Floats = NDArray[np.float64]
DAMAGED = "damaged item"


@dataclass(frozen=True, slots=True)
class Furniture:
    """A piece of furniture: the id of its 3D-FUTURE model, and what the house file calls it."""

    uid: str
    jid: str
    category: str
    title: str


@dataclass(frozen=True, slots=True)
class Part:
    """A mesh of the building: ``kind`` is the file's type (WallInner, Floor, ...); vertices (N,3) y up, triangles (T,3)."""

    uid: str
    kind: str
    vertices: Floats
    triangles: NDArray[np.int64]
    material: Material | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """``matrix`` (3,3) = rotation x scale, ``offset`` (3,) m; ``name`` says which child of which room of which file."""

    matrix: Floats
    offset: Floats
    name: str

    def apply(self, points: Floats) -> Floats:
        """Points (N,3) of a model in the house, y up."""
        return np.asarray(points @ self.matrix.T + self.offset)


@dataclass(frozen=True, slots=True)
class HouseRoom:
    """One room with everything that it places; ``openings``: doors and windows that other rooms of the house place.

    A door between two rooms is a child of one of them only.
    """

    room_id: str
    kind: str
    furniture: tuple[tuple[Furniture, Placement], ...]
    parts: tuple[tuple[Part, Placement], ...]
    openings: tuple[tuple[Part, Placement], ...] = ()


def read_house(path: Path, tally: Tally) -> list[HouseRoom]:
    """Rooms of a house file. DataError when it is not such a file; faults of single items go to ``tally``."""
    content = _load(path)
    furniture, invalid, damaged = _furniture(content, path, tally)
    parts = _parts(content, path, tally, damaged)
    rooms: dict[str, HouseRoom] = {}
    for number, entry in enumerate(_list(_mapping(content.get("scene"), path, "scene"), "room", path)):
        where = f"{path}: scene.room[{number}]"
        try:
            room_id = checked_id(_mapping(entry, path, "scene.room").get("instanceid"), what="room instanceid", where=where)
        except DataError as error:
            tally.fault("room without a usable id", error.what, where)
            continue
        if room_id in rooms:
            tally.fault("room given twice", room_id, where)
            continue
        rooms[room_id] = _room(entry, room_id, (furniture, parts), (invalid, damaged), path, tally)
    if not rooms:
        tally.choice("house without rooms")
    return _with_openings(list(rooms.values()))


def _with_openings(rooms: list[HouseRoom]) -> list[HouseRoom]:
    """Every room with the doors and windows of the others."""
    found = {part.uid: (part, placement) for room in rooms for part, placement in room.parts if is_opening(part.kind)}
    result = []
    for room in rooms:
        own = {part.uid for part, _ in room.parts}
        result.append(replace(room, openings=tuple(pair for uid, pair in found.items() if uid not in own)))
    return result


def is_opening(kind: str) -> bool:
    """Return whether a mesh type is that of a door or window."""
    return "door" in kind.lower() or "window" in kind.lower()


def _load(path: Path) -> dict[str, Any]:
    fix = "download the file again, or take it out of the folder"
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error})", fix=fix) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", fix=fix) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold a JSON object", fix=fix)
    return content


def _mapping(value: Any, path: Path, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{key} is not a JSON object: this is no house of 3D-FRONT", where=str(path))
    return value


def _list(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise DataError(f"{key} is not a list: this is no house of 3D-FRONT", where=str(path))
    return value


def _furniture(content: Mapping[str, Any], path: Path, tally: Tally) -> tuple[dict[str, Furniture], set[str], set[str]]:
    """Valid furniture by uid, the uids of what the release itself marks as invalid, and of what is counted as damaged."""
    found: dict[str, Furniture] = {}
    invalid: set[str] = set()
    damaged: set[str] = set()
    for number, entry in enumerate(_list(content, "furniture", path)):
        where = f"{path}: furniture[{number}]"
        uid, jid = _texts(entry, "uid", "jid")
        if not uid:
            tally.fault(DAMAGED, "no uid", where)
        elif not entry.get("valid"):
            invalid.add(uid)
        else:
            try:
                checked_id(jid, what="model id (jid)", where=where)
            except DataError:
                tally.fault("unusable model id", f"jid {jid!r} is not made of {ID_PATTERN}", where)
                damaged.add(uid)
                continue
            found[uid] = Furniture(uid, jid, *_texts(entry, "category", "title"))
    return found, invalid, damaged


def _texts(entry: Any, *keys: str) -> tuple[str, ...]:
    """Values of keys that hold text; "" for others."""
    values = [entry.get(key) if isinstance(entry, dict) else None for key in keys]
    return tuple(v if isinstance(v, str) else "" for v in values)


def _parts(content: Mapping[str, Any], path: Path, tally: Tally, damaged: set[str]) -> dict[str, Part]:
    """Building meshes by uid; the uids of damaged ones are added to ``damaged``."""
    found = {}
    materials = read_materials(content)
    for number, entry in enumerate(_list(content, "mesh", path)):
        where = f"{path}: mesh[{number}]"
        uid, kind, material = _texts(entry, "uid", "type", "material")
        vertices = _numbers(entry, "xyz", 3)
        corners = _numbers(entry, "faces", 3)
        if not uid or vertices is None or corners is None or not len(vertices) or not len(corners):
            tally.fault(DAMAGED, f"uid {uid!r}: xyz and faces must be finite numbers, three by three, and not empty", where)
            damaged.add(uid)
            continue
        triangles = corners.astype(np.int64)
        if triangles.min() < 0 or triangles.max() >= len(vertices) or (triangles != corners).any():
            tally.fault(DAMAGED, f"uid {uid!r}: faces name vertices that do not exist (there are {len(vertices)})", where)
            damaged.add(uid)
            continue
        found[uid] = Part(uid, kind, vertices, triangles, materials.get(material))
    return found


def _numbers(entry: Any, key: str, width: int) -> Floats | None:
    """Finite numbers (N, width) of a flat list, none beyond ``LARGEST``; None when they are not that."""
    try:
        values = np.asarray(entry[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if values.ndim > 2 or values.size % width or not (np.abs(values) <= LARGEST).all():
        return None
    return values.reshape(-1, width)


def _room(
    entry: dict[str, Any],
    room_id: str,
    defined: tuple[Mapping[str, Furniture], Mapping[str, Part]],
    left_out: tuple[set[str], set[str]],
    path: Path,
    tally: Tally,
) -> HouseRoom:
    """A room with what it places of ``defined``; ``left_out``: uids that are invalid, and damaged ones, counted already."""
    furniture, parts = defined
    invalid, damaged = left_out
    placed: list[tuple[Furniture, Placement]] = []
    built: list[tuple[Part, Placement]] = []
    children = entry.get("children")
    if not isinstance(children, list):
        tally.fault(DAMAGED, "children is not a list", f"{path}: room {room_id}")
        children = []
    for number, child in enumerate(children):
        (ref,) = _texts(child, "ref")
        where = f"{path}: room {room_id}, child {number} ({ref or 'no ref'})"
        if ref in invalid:
            tally.choice("furniture that the release marks as invalid")
        elif ref in furniture or ref in parts:
            placement = _placement(child, where, tally)
            if placement is not None and ref in furniture:
                placed.append((furniture[ref], placement))
            elif placement is not None:
                built.append((parts[ref], placement))
        elif not ref or ref not in damaged:
            tally.choice("child of a room that names nothing in its file")
    return HouseRoom(room_id, _texts(entry, "type")[0], tuple(placed), tuple(built))


def _placement(child: dict[str, Any], where: str, tally: Tally) -> Placement | None:
    """Transform of a child; None, and a fault, when it is not finite or turns nothing into something flat."""
    found = [_numbers(child, key, size) for key, size in (("pos", 3), ("rot", 4), ("scale", 3))]
    single = [v[0] for v in found if v is not None and len(v) == 1]
    if len(single) != 3:
        tally.fault("transform that is not finite", "pos, rot and scale must be 3, 4 and 3 finite numbers", where)
        return None
    position, quaternion, scale = single
    length = float(np.linalg.norm(quaternion))
    if length < 1e-6 or (np.abs(scale) < 1e-6).any():
        tally.fault("transform of size zero", f"rot {quaternion.tolist()}, scale {scale.tolist()}", where)
        return None
    return Placement(rotation(quaternion / length) * scale, position, where)


def rotation(quaternion: Floats) -> Floats:
    """Matrix (3,3) of a unit quaternion x, y, z, w."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
