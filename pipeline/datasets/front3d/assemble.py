"""A room of 3D-FRONT put together: furniture in the world frame with noun, colour, front and support; the walkable room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError
from pipeline.datasets._film.catalog import CATEGORIES
from pipeline.datasets._film.mesh import PLAIN, Mesh
from pipeline.datasets._film.room import Item, Rect
from pipeline.datasets._language.facts import Landmark
from pipeline.datasets.front3d.faults import Tally
from pipeline.datasets.front3d.finish import Finishes
from pipeline.datasets.front3d.house import Furniture, HouseRoom, Placement
from pipeline.datasets.front3d.model import Model, ModelStore
from pipeline.datasets.front3d.shell import (
    HEAD_M,
    THIN_M,
    FloorPlan,
    WorldFrame,
    bounds_of,
    height_of,
    joining,
    landmarks_of,
    place_shell,
    plan_of,
    shell_mesh,
)
from pipeline.datasets.front3d.words import noun_of

Floats = NDArray[np.float64]
TOUCH_M = 0.06
"""By how much a thing may hover over, or sink into, what it stands on."""
HUNG_M = 0.5
"""Things that begin higher and stand on nothing hang."""
LAMP_HUNG_M = 1.2
"""Lamps that begin higher hang from the ceiling, unless they are wall lamps."""
MOST_OUTLINE = 10.0
"""Bounding rectangles larger than this times the largest floor are not even looked into."""
STORAGE = ("bookshelf", "cabinet", "wardrobe")
"""Nouns that people also give to what is built in: a room that has such parts says nothing about any of them."""
STORAGE_PARTS = ("cabinet", "furniture", "personalized", "storage")
"""Words in the types of building meshes that may be cupboards (Cabinet, CustomizedFixedFurniture, ...)."""
MOST_IDS = 900
"""Objects of one room; the choice of views numbers them below 1000."""


@dataclass(frozen=True, slots=True)
class Paint:
    """Texture of a mesh: coordinates (T,3,2) and picture uint8 (h,w,3)."""

    uv: NDArray[np.float32]
    texture: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scenery:
    """Furniture that is shown but has no noun."""

    mesh: Mesh
    paint: Paint | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the rooms that are taken: number of named objects, floor area in m2, shortest side in m, types (None: all)."""

    objects: tuple[int, int]
    floor_m2: tuple[float, float]
    side_m: float
    room_types: tuple[str, ...] | None


@dataclass
class FrontRoom:
    """A room as camera, renderer and language need it; ``paints`` and ``hangs`` per object id; ``unsaid``:
    nouns that the language leaves alone."""

    scene_id: str
    bounds: Rect
    height: float
    plan: FloorPlan
    frame: WorldFrame
    shell: Mesh
    landmarks: tuple[Landmark, ...]
    unsaid: tuple[str, ...] = ()
    items: list[Item] = field(default_factory=list)
    paints: list[Paint | None] = field(default_factory=list)
    hangs: list[Literal["wall", "ceiling"] | None] = field(default_factory=list)
    scenery: list[Scenery] = field(default_factory=list)

    def obstacles(self) -> Floats:
        """Footprints (N,4) that a standing person keeps off: things at body height, and what is not floor."""
        rects = [i.rect for i in self.items if i.on is None and i.low[2] < HEAD_M]
        return np.array([*rects, *self.blocked()]).reshape(-1, 4)

    def blocked(self) -> list[Rect]:
        """Footprints inside the bounds where nobody can stand and that are no object."""
        found = []
        for thing in self.scenery:
            low, high = thing.mesh.bounds()
            if low[2] < HEAD_M and high[2] > THIN_M:
                found.append((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
        return found + self.plan.gaps()

    def unnamed(self) -> list[Rect]:
        """Footprints of what is shown and has no noun: furniture, and parts of the building that stand on the floor."""
        corners = [thing.mesh.bounds() for thing in self.scenery]
        found = [(float(low[0]), float(low[1]), float(high[0]), float(high[1])) for low, high in corners]
        return found + self.plan.built_in()

    def on_floor(self, points: Floats) -> NDArray[np.bool_]:
        """Return which points (N,2) are floor and in no obstacle."""
        free = self.plan.contains(points)
        for rect in self.obstacles():
            free &= ~((points > rect[:2]) & (points < rect[2:])).all(1)
        return free

    def light(self) -> tuple[float, float, float]:
        """Place of the lamp: over the middle of the floor, below whatever hangs there."""
        x, y = self.plan.middle()
        z = self.height - 0.15
        for item in self.items:
            near = item.low[0] - 0.6 < x < item.high[0] + 0.6 and item.low[1] - 0.6 < y < item.high[1] + 0.6
            if near and item.low[2] > LAMP_HUNG_M:
                z = min(z, float(item.low[2]) - 0.1)
        return (float(x), float(y), z)


def assemble(
    scene_id: str, source: HouseRoom, models: ModelStore, finishes: Finishes, tally: Tally, limits: Limits
) -> FrontRoom | str:
    """The room in the world frame, or why the limits leave it out; ``tally`` counts the furniture that is left out."""
    if limits.room_types is not None and source.kind.lower() not in {t.lower() for t in limits.room_types}:
        return "room of another type"
    if not source.furniture:
        return "room without furniture"
    placed = place_shell(source, finishes, tally)
    if placed is None:
        return "room without a floor"
    frame, solids = placed
    x0, y0, x1, y1 = bounds_of(solids)
    if min(x1 - x0, y1 - y0) < limits.side_m or (x1 - x0) * (y1 - y0) > MOST_OUTLINE * limits.floor_m2[1]:
        return "room too small or too large"
    plan = plan_of(solids)
    if not limits.floor_m2[0] <= plan.area_m2 <= limits.floor_m2[1]:
        return "room too small or too large"
    solids += joining(source, frame, plan, finishes, tally)
    shell = shell_mesh(scene_id, solids)
    room = FrontRoom(scene_id, plan.bounds, height_of(solids), plan, frame, shell, landmarks_of(solids, plan))
    room.unsaid = STORAGE if _cupboards(source, room) else ()
    for furniture, placement in source.furniture:
        _add(room, furniture, placement, models, tally)
    if not limits.objects[0] <= len(room.items) <= min(limits.objects[1], MOST_IDS):
        return "room with too few or too many objects"
    _support(room)
    return room


def _cupboards(source: HouseRoom, room: FrontRoom) -> bool:
    """Return whether something built in that people may call a cabinet, wardrobe or bookshelf is in the room."""
    for part, placement in source.parts:
        if any(word in part.kind.lower() for word in STORAGE_PARTS):
            points = room.frame.points(placement.apply(part.vertices))
            if points[:, 2].max() > THIN_M and _overlaps(room.bounds, points.min(0), points.max(0)):
                return True
    return False


def _add(room: FrontRoom, furniture: Furniture, placement: Placement, models: ModelStore, tally: Tally) -> None:
    """Put one piece of furniture into the room: as an object, as scenery, or not at all with a count."""
    where = placement.name
    if not models.has(furniture.jid):
        tally.fault("model that is not there", f"{models.root / furniture.jid / 'raw_model.obj'}", where)
        return
    try:
        model = models.get(furniture.jid)
    except DataError as error:
        tally.fault("damaged model", error.what, where)
        return
    mesh = Mesh(room.frame.points(placement.apply(model.vertices)), model.triangles, model.albedo, _surface(model))
    low, high = mesh.bounds()
    if not np.isfinite([low, high]).all() or (high - low).min() < 1e-3:
        tally.fault("box of size zero", f"model {furniture.jid} is {np.round(high - low, 4).tolist()} m", where)
        return
    if (high - low).max() > 3 * max(room.bounds[2] - room.bounds[0], room.bounds[3] - room.bounds[1], room.height):
        tally.fault("box much larger than its room", f"model {furniture.jid} is {np.round(high - low, 1).tolist()} m", where)
        return
    if not _overlaps(room.bounds, low, high):
        tally.choice("furniture outside its room")
        return
    paint = None if model.uv is None or model.texture is None else Paint(model.uv, model.texture)
    noun = noun_of(model.category or furniture.category, model.super_category, furniture.title)
    if noun is None or noun in room.unsaid:
        why = "furniture without a noun" if noun is None else "furniture like what is built into its room"
        tally.choice(f"{why} (shown, never asked about)")
        room.scenery.append(Scenery(mesh, paint))
        return
    front = _front(noun, room.frame, placement)
    room.items.append(Item(len(room.items), noun, model.colour, mesh, low, high, None, front))
    room.paints.append(paint)
    wall_lamp = "wall lamp" in (model.category or furniture.category).lower()
    room.hangs.append(_hangs(noun, float(low[2]), wall_lamp=wall_lamp))


def _surface(model: Model) -> NDArray[np.int64]:
    return np.full(len(model.triangles), PLAIN)


def _overlaps(bounds: Rect, low: Floats, high: Floats) -> bool:
    """Return whether the middle of a box is over the room's bounding rectangle, 0.3 m of walls included."""
    x, y = ((low + high) / 2)[:2]
    return bool(bounds[0] - 0.3 < x < bounds[2] + 0.3 and bounds[1] - 0.3 < y < bounds[3] + 0.3)


def _front(noun: str, frame: WorldFrame, placement: Placement) -> tuple[float, float] | None:
    """Direction on the floor of a model's front (+z of the model), for nouns that face somewhere.

    Only chairs may face anywhere: the place in front of other furniture is measured from its box, along an axis.
    """
    if not CATEGORIES[noun].faces:
        return None
    ahead = (frame.turn @ placement.matrix @ np.array([0.0, 0.0, 1.0]))[:2]
    length = float(np.hypot(*ahead))
    if length < 1e-6:
        return None
    ahead = ahead / length
    if noun != "chair" and float(np.abs(ahead).max()) < np.cos(np.radians(15.0)):
        return None
    return (float(ahead[0]), float(ahead[1]))


def _hangs(noun: str, bottom_m: float, *, wall_lamp: bool) -> Literal["wall", "ceiling"] | None:
    """From what a thing hangs whose lowest point is at ``bottom_m``, if it stands on nothing."""
    if noun == "lamp":
        if wall_lamp:
            return "wall"
        return "ceiling" if bottom_m > LAMP_HUNG_M else None
    return "wall" if bottom_m > HUNG_M else None


def _support(room: FrontRoom) -> None:
    """Say what stands on what: its bottom at the top of a supporting piece, its middle over it."""
    hosts = [i for i in room.items if CATEGORIES[i.category].support and room.hangs[i.object_id] != "ceiling"]
    for number, item in enumerate(room.items):
        x, y = ((item.low + item.high) / 2)[:2]
        for host in hosts:
            over = host.low[0] < x < host.high[0] and host.low[1] < y < host.high[1]
            smaller = float(np.prod((item.high - item.low)[:2])) < float(np.prod((host.high - host.low)[:2]))
            if host is not item and over and smaller and abs(float(item.low[2] - host.high[2])) < TOUCH_M:
                room.items[number] = Item(
                    item.object_id, item.category, item.colour, item.mesh, item.low, item.high, host.object_id, item.front
                )
                room.hangs[number] = None
                break
