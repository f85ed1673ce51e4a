"""For tests: small houses and models in the real formats of 3D-FRONT and 3D-FUTURE, with box-like furniture.

Written independently of the reader: y-up metres, quaternions x, y, z, w, flat number lists, models that face +z.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.core import registry
from pipeline.scenes.index import SceneIndex

Box = tuple[float, float, float, float, float, float]
"""x0, y0, z0, x1, y1, z1 in the model's frame: y up, front +z."""

HEIGHT = 2.7
SMALL = {"views": 2, "width_px": 48, "height_px": 36}


def _table(w: float, h: float, d: float) -> list[Box]:
    legs = [(x, 0.0, z, x + 0.06, h - 0.05, z + 0.06) for x in (-w / 2, w / 2 - 0.06) for z in (-d / 2, d / 2 - 0.06)]
    return [(-w / 2, h - 0.05, -d / 2, w / 2, h, d / 2), *legs]


MODELS: dict[str, tuple[str, str, tuple[int, int, int], list[Box]]] = {
    "bed-1": ("Bed", "King-size Bed", (40, 60, 170), [(-0.8, 0, -1, 0.8, 0.5, 1), (-0.8, 0.5, -1, 0.8, 1.0, -0.9)]),
    "stand-1": ("Cabinet/Shelf/Desk", "Nightstand", (110, 70, 40), [(-0.25, 0, -0.2, 0.25, 0.5, 0.2)]),
    "robe-1": ("Cabinet/Shelf/Desk", "Wardrobe", (235, 235, 235), [(-0.7, 0, -0.3, 0.7, 2.1, 0.3)]),
    "desk-1": ("Table", "Desk", (120, 75, 40), _table(1.2, 0.75, 0.6)),
    "chair-1": (
        "Chair", "Dining Chair", (200, 30, 30),
        [*_table(0.46, 0.45, 0.46), (-0.23, 0.45, -0.23, 0.23, 0.95, -0.18)],
    ),
    "chair-2": (
        "Chair", "Dining Chair", (30, 150, 50),
        [*_table(0.46, 0.45, 0.46), (-0.23, 0.45, -0.23, 0.23, 0.95, -0.18)],
    ),
    "sofa-1": (
        "Sofa", "Three-Seat / Multi-seat Sofa", (128, 128, 128),
        [(-1, 0, -0.4, 1, 0.45, 0.4), (-1, 0.45, -0.4, 1, 0.85, -0.2)],
    ),
    "tea-1": ("Table", "Coffee Table", (20, 20, 20), _table(1.0, 0.4, 0.6)),
    "tv-1": ("Cabinet/Shelf/Desk", "TV Stand", (115, 70, 40), [(-0.8, 0, -0.2, 0.8, 0.5, 0.2)]),
    "shelf-1": ("Cabinet/Shelf/Desk", "Bookcase / jewelry Armoire", (230, 200, 160), [(-0.5, 0, -0.15, 0.5, 1.8, 0.15)]),
    "stool-1": (
        "Pier/Stool", "Footstool / Sofastool / Bed End Stool / Stool", (240, 130, 20),
        [(-0.2, 0, -0.2, 0.2, 0.42, 0.2)],
    ),
    "lamp-1": (
        "Lighting", "Floor Lamp", (235, 215, 40),
        [(-0.02, 0, -0.02, 0.02, 1.4, 0.02), (-0.2, 1.3, -0.2, 0.2, 1.6, 0.2)],
    ),
    "lamp-3": ("Lighting", "Floor Lamp", (235, 215, 40), [(-0.12, 0, -0.12, 0.12, 0.45, 0.12)]),
    "lamp-2": ("Lighting", "Pendant Lamp", (240, 240, 240), [(-0.25, -0.15, -0.25, 0.25, 0.15, 0.25)]),
    "rug-1": ("Others", "Others", (150, 90, 90), [(-1, 0, -0.7, 1, 0.02, 0.7)]),
}  # fmt: skip

_BEDROOM = (
    ("bed-1", 0.0, 0.0, -0.95, 0.0), ("stand-1", -1.15, 0.0, -1.7, 0.0), ("stand-1", 1.15, 0.0, -1.7, 0.0),
    ("lamp-3", 1.15, 0.5, -1.7, 0.0), ("robe-1", -1.85, 0.0, 0.9, 90.0), ("desk-1", 1.9, 0.0, 0.6, -90.0),
    ("chair-1", 1.35, 0.0, 0.6, 90.0), ("stool-1", 0.0, 0.0, 1.5, 0.0), ("lamp-2", 0.3, 2.4, 0.9, 0.0),
    ("rug-1", 0.0, 0.0, 1.0, 0.0),
)  # fmt: skip
_LIVING = (
    ("sofa-1", -0.4, 0.0, -1.55, 0.0), ("tea-1", -0.4, 0.0, -0.5, 0.0), ("tv-1", 0.0, 0.0, 1.7, 180.0),
    ("shelf-1", -2.0, 0.0, 0.3, 90.0), ("chair-1", 1.7, 0.0, -0.9, -90.0), ("chair-2", 1.7, 0.0, 0.3, -100.0),
    ("chair-2", 1.2, 0.0, 1.2, -120.0), ("lamp-1", 1.7, 0.0, -1.6, 0.0), ("lamp-2", -0.4, 2.4, -0.5, 0.0),
)  # fmt: skip
ROOMS = {"MasterBedroom": _BEDROOM, "LivingRoom": _LIVING}
"""Room type -> (model, x, y, z, degrees about y) with the room's middle at 0; both rooms are 4.4 x 4.0 m."""
SIZE = (4.4, 4.0)

HOUSES = ("house-a", "house-b", "house-c", "house-d")


def write_front3d(folder: Path) -> dict[str, Any]:
    """Four houses of two rooms and the models they use; returns the options that point to them."""
    write_models(folder / "3D-FUTURE-model")
    for number, name in enumerate(HOUSES):
        rooms = [
            room("MasterBedroom", f"MasterBedroom-{number}1"),
            room("LivingRoom", f"LivingRoom-{number}2", middle=(6.0, 1.0)),
        ]
        write_house(folder / "3D-FRONT", name, house(rooms, degrees=25.0 * (number == 1)))
    return options(folder)


def options(folder: Path) -> dict[str, Any]:
    """Options that point to the written files, with small pictures and shares that fill all splits."""
    paths = {"houses": str(folder / "3D-FRONT"), "models": str(folder / "3D-FUTURE-model")}
    return paths | {"views": 4, "width_px": 96, "height_px": 72, "val_share": 0.3, "test_share": 0.3}


def write_house(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write one house file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content | {"uid": name}))
    return path


def write_models(folder: Path) -> None:
    """Model folders with OBJ and texture, and the list of all models."""
    listed = []
    for jid, (group, category, colour, boxes) in MODELS.items():
        write_model(folder / jid, boxes, colour)
        listed.append({"model_id": jid, "super-category": group, "category": category, "style": None, "theme": None})
    (folder / "model_info.json").write_text(json.dumps(listed))


def write_model(folder: Path, boxes: Sequence[Box], colour: tuple[int, int, int]) -> None:
    """raw_model.obj of boxes as quads with texture coordinates, and texture.png: one colour with a faint pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["mtllib model.mtl", "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    faces = []
    for number, (x0, y0, z0, x1, y1, z1) in enumerate(boxes):
        lines += [f"v {x} {y} {z}" for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)]
        for quad in ((1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)):
            faces.append("f " + " ".join(f"{8 * number + corner}/{k + 1}" for k, corner in enumerate(quad)))
    (folder / "raw_model.obj").write_text("\n".join([*lines, "usemtl m", *faces]) + "\n")
    pattern = np.indices((16, 16)).sum(0)[..., None] % 4 * 5
    picture = np.clip(np.array(colour) - 8 + pattern, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(folder / "texture.png")


def room(
    kind: str,
    instanceid: str,
    *,
    middle: tuple[float, float] = (0.0, 0.0),
    things: Sequence[tuple[str, float, float, float, float]] | None = None,
    corners: Sequence[tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """A room with its meshes and furniture, before it is put into a house (see ``house``); ``corners`` (x,z) of the floor."""
    w, d = SIZE[0] / 2, SIZE[1] / 2
    outline = corners or [(-w, -d), (w, -d), (w, d), (-w, d)]
    return {
        "type": kind, "instanceid": instanceid, "middle": middle, "outline": list(outline),
        "things": ROOMS[kind] if things is None else things,
    }  # fmt: skip


def house(rooms: Sequence[dict[str, Any]], *, degrees: float = 0.0) -> dict[str, Any]:
    """Content of a house file; everything turned about y by ``degrees``."""
    content: dict[str, Any] = {"version": "V0", "furniture": [], "mesh": [], "material": [], "scene": {"room": []}}
    turn = np.radians(degrees)
    for entry in rooms:
        children: list[dict[str, Any]] = []
        offset = np.array([entry["middle"][0], 0.0, entry["middle"][1]])
        for number, (kind, vertices, faces) in enumerate(_building(entry["outline"])):
            uid = f"{entry['instanceid']}-mesh{number}"
            points = _turned(np.array(vertices) + offset, turn)
            content["mesh"].append(
                {"uid": uid, "jid": "", "type": kind, "xyz": points.ravel().tolist(), "faces": list(np.ravel(faces)),
                 "normal": [], "uv": [], "material": ""}
            )  # fmt: skip
            children.append(_child(uid, np.zeros(3), 0.0, f"mesh/{number}"))
        for number, (jid, x, y, z, yaw) in enumerate(entry["things"]):
            uid = f"{entry['instanceid']}-{number}/model"
            content["furniture"].append(
                {"uid": uid, "jid": jid, "category": "", "title": "", "size": [1, 1, 1], "bbox": [1, 1, 1], "valid": True}
            )
            place = _turned(np.array([[x, y, z]]) + offset, turn)[0]
            children.append(_child(uid, place, np.radians(yaw) + turn, f"furniture/{number}"))
        content["scene"]["room"].append({"type": entry["type"], "instanceid": entry["instanceid"], "children": children})
    content["mesh"] = json.loads(json.dumps(content["mesh"], default=int))
    return content


def _child(ref: str, pos: np.ndarray, yaw: float, instanceid: str) -> dict[str, Any]:
    rot = [0.0, float(np.sin(yaw / 2)), 0.0, float(np.cos(yaw / 2))]
    return {"ref": ref, "pos": [float(p) for p in pos], "rot": rot, "scale": [1, 1, 1], "instanceid": instanceid}


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (N,3) turned about the y axis."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T


def _building(outline: Sequence[tuple[float, float]]) -> list[tuple[str, list[Any], list[Any]]]:
    """(type, vertices, triangles) of floor, ceiling, walls, one door and one window in the first two walls."""
    ring = [(x, 0.0, z) for x, z in outline]
    fan = [(0, k, k + 1) for k in range(1, len(ring) - 1)]
    parts: list[tuple[str, list[Any], list[Any]]] = [
        ("Floor", ring, fan), ("CustomizedCeiling", [(x, HEIGHT, z) for x, _, z in ring], fan),
    ]  # fmt: skip
    for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
        top = [(b[0], HEIGHT, b[2]), (a[0], HEIGHT, a[2])]
        parts.append(("WallInner", [a, b, *top], [(0, 1, 2), (0, 2, 3)]))
    parts.append(("Door", *_panel(ring[1], ring[2], (0.72, 0.92), (0.0, 2.05))))
    parts.append(("Window", *_panel(ring[2], ring[3], (0.15, 0.4), (0.9, 2.1))))
    return parts


def _panel(a: Any, b: Any, along: tuple[float, float], height: tuple[float, float]) -> tuple[list[Any], list[Any]]:
    """A thin box on the wall between two corners of the outline, 4 cm into the room (the outline runs around its inside)."""
    start, end = np.array([a[0], a[2]]), np.array([b[0], b[2]])
    way = (end - start) / np.linalg.norm(end - start)
    inward = np.array([-way[1], way[0]])
    length = float(np.linalg.norm(end - start))
    vertices = []
    for t in along:
        for off in (0.0, 0.04):
            spot = start + way * t * length + inward * off
            vertices += [(spot[0], y, spot[1]) for y in height]
    corners = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4)]
    return vertices, [*corners, (1, 5, 7), (1, 7, 3)]


def dataset(folder: Path, **changes: Any) -> Any:
    """The dataset member that reads the files of ``folder``, with few and small views."""
    content = options(folder) | SMALL | changes
    return registry.create("datasets", {"name": "front", "kind": "front3d", "options": content})


def prepare(folder: Path, *, threads: int = 1, **options: Any) -> SceneIndex:
    """The files of ``folder`` prepared in its subfolder ``out``."""
    dataset(folder, **options).prepare(folder / "out", threads=threads)
    return SceneIndex(folder / "out" / "manifest.json")


def one_house(folder: Path, *rooms: dict[str, Any], degrees: float = 0.0) -> Path:
    """Write one house of these rooms; its file."""
    write_models(folder / "3D-FUTURE-model")
    return write_house(folder / "3D-FRONT", "house-x", house(rooms, degrees=degrees))


def bedroom(**changes: Any) -> dict[str, Any]:
    """A bedroom as the argument of ``one_house``."""
    return room("MasterBedroom", "MasterBedroom-1", **changes)
