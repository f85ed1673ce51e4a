"""What is known about a finished room, as plain numbers: the only input of the language, and part of the scene's marker."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._film.catalog import ROOM_WORDS, Words, coloured
from pipeline.datasets._film.distances import gaps_between, longest_edge
from pipeline.datasets._film.film import SEEN_SHARE, BuiltRoom
from pipeline.datasets._film.room import NORMALS

if TYPE_CHECKING:
    from pipeline.datasets._film.room import Item

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Thing:
    """One object: corners ``low``/``high`` (3,) m, the object it stands ``on``, the direction of its ``front``, from what it
    ``hangs`` (None: it stands), and its longest edge ``longest_m`` where it may stand askew (None: that of its box)."""

    object_id: int
    category: str
    colour: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    on: int | None
    front: tuple[float, float] | None
    hangs: Literal["wall", "ceiling"] | None = None
    longest_m: float | None = None

    @cached_property
    def centre(self) -> Floats:
        return (np.array(self.low) + np.array(self.high)) / 2

    @cached_property
    def size(self) -> Floats:
        return np.array(self.high) - np.array(self.low)

    @property
    def hung(self) -> bool:
        """Return whether it hangs on a wall or from the ceiling."""
        return self.hangs is not None

    @property
    def named(self) -> str:
        """Colour and category: ``red chair``, ``plant in a red pot``."""
        return coloured(self.colour, self.category)

    def box(self) -> tuple[float, float, float, float, float, float]:
        """[cx,cy,cz,dx,dy,dz] in metres."""
        values = np.round(np.concatenate([self.centre, self.size]), 6).tolist()
        return (values[0], values[1], values[2], values[3], values[4], values[5])


@dataclass(frozen=True)
class Landmark:
    """A door or window: ``centre`` (2,) on the wall, its ``normal`` (2,) into the room, ``width`` m."""

    kind: str
    centre: tuple[float, float]
    normal: tuple[float, float]
    width: float


@dataclass(frozen=True)
class RoomFacts:
    """``bounds`` x0,y0,x1,y1; ``pillar`` the cut-off corner or None; ``visible`` per frame {object id: share of pixels}.

    ``blocked``: footprints (x0,y0,x1,y1) inside the bounds where nobody can stand and that are no object; ``rectangular``:
    whether the bounds' corners are the room's corners. ``unnamed``: footprints of things that are seen but have no noun: what
    one of them could be the answer to is not asked. ``words``: what the language may ask for. ``floor_m2``: area of the
    floor (None: that of the bounds less the pillar). ``gaps_m``: distance between the nearest points of two objects (lower id
    first), where boxes may be wider than what is in them; pairs that are not in it are as far apart as their boxes.
    """

    scene_id: str
    frame_ids: tuple[str, ...]
    bounds: tuple[float, float, float, float]
    pillar: tuple[float, float, float, float] | None
    things: tuple[Thing, ...]
    landmarks: tuple[Landmark, ...]
    visible: tuple[dict[int, float], ...]
    blocked: tuple[tuple[float, ...], ...] = ()
    rectangular: bool = True
    unnamed: tuple[tuple[float, ...], ...] = ()
    words: Words = ROOM_WORDS
    floor_m2: float | None = None
    gaps_m: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @cached_property
    def seen(self) -> frozenset[int]:
        """Ids of the objects that at least one view shows clearly."""
        return frozenset(i for shares in self.visible for i, share in shares.items() if share >= SEEN_SHARE)

    @cached_property
    def counts(self) -> Counter[str]:
        """Count the objects of each category."""
        return Counter(t.category for t in self.things)

    @cached_property
    def named_counts(self) -> Counter[tuple[str, str]]:
        """Count the objects of each category and colour."""
        return Counter((t.category, t.colour) for t in self.things)

    @cached_property
    def ids(self) -> dict[tuple[str, str | None], frozenset[int]]:
        """Object ids per (category, colour), and per (category, None) of any colour."""
        found: dict[tuple[str, str | None], set[int]] = {}
        for thing in self.things:
            for colour in (None, thing.colour):
                found.setdefault((thing.category, colour), set()).add(thing.object_id)
        return {key: frozenset(ids) for key, ids in found.items()}

    def of(self, category: str, colour: str | None = None) -> list[Thing]:
        """Objects of a category (and colour)."""
        return [t for t in self.things if t.category == category and colour in (None, t.colour)]

    def all_seen(self, things: Sequence[Thing]) -> bool:
        """Return whether every one of them is shown by some view."""
        return all(t.object_id in self.seen for t in things)

    def single(self, kind: str) -> Landmark | None:
        """The room's only door or only window."""
        found = [m for m in self.landmarks if m.kind == kind]
        return found[0] if len(found) == 1 else None

    def area_m2(self) -> float:
        """Area of the floor in square metres."""
        if self.floor_m2 is not None:
            return self.floor_m2
        x0, y0, x1, y1 = self.bounds
        a, b, c, d = self.pillar or (0.0, 0.0, 0.0, 0.0)
        return (x1 - x0) * (y1 - y0) - (c - a) * (d - b)

    def gap_m(self, a: Thing, b: Thing) -> float:
        """Metres between the nearest points of two objects."""
        pair = (min(a.object_id, b.object_id), max(a.object_id, b.object_id))
        boxes = (max(a.low[k] - b.high[k], b.low[k] - a.high[k], 0.0) for k in range(3))
        return self.gaps_m[pair] if pair in self.gaps_m else math.hypot(*boxes)

    def reference(self, thing: Thing) -> str | None:
        """A noun phrase that fits this object alone, or None: ``the desk``, ``the red chair``."""
        if self.counts[thing.category] == 1:
            return f"the {thing.category}"
        return f"the {thing.named}" if self.named_counts[thing.category, thing.colour] == 1 else None


def facts_of(scene_id: str, built: BuiltRoom, *, spatial: bool = False) -> dict[str, Any]:
    """The facts as JSON content, rounded to 0.1 mm so that they read back equal; ``spatial``: with what VSI-Bench asks for."""

    def numbers(values: Any) -> list[float]:
        return [round(float(v), 4) for v in values]

    room = built.room
    return (spatial_facts(room.items) if spatial else {}) | {
        "scene_id": scene_id,
        "frame_ids": [f"{frame:05d}" for frame in built.frames],
        "bounds": numbers(room.bounds),
        "pillar": numbers(room.pillar) if room.pillar else None,
        "things": [
            {
                "object_id": i.object_id, "category": i.category, "colour": i.colour, "low": numbers(i.low),
                "high": numbers(i.high), "on": i.on, "front": numbers(i.front) if i.front else None,
            }
            for i in room.items
        ],
        "landmarks": [
            {"kind": o.kind, "centre": numbers(o.centre), "normal": numbers(NORMALS[o.wall]), "width": round(o.width, 4)}
            for o in room.openings
        ],
        "visible": [{str(k): v for k, v in shares.items()} for shares in built.visible],
    }  # fmt: skip


def spatial_facts(items: Sequence[Item]) -> dict[str, Any]:
    """Distances between surfaces and longest edges of objects that may stand askew, as part of the facts' content."""
    meshes = [item.mesh for item in items]
    return {"gaps_m": gaps_between(meshes), "longest_m": [round(longest_edge(mesh), 4) for mesh in meshes]}


def facts_from_json(content: dict[str, Any], words: Words = ROOM_WORDS) -> RoomFacts:
    """Inverse of ``facts_of``. KeyError/TypeError/ValueError when the content is damaged.

    ``hangs`` of a thing, ``blocked``, ``rectangular``, ``unnamed``, ``unsaid`` (categories that the language leaves alone in
    this room) and ``floor_m2`` may be left out, as the built-in rooms do: there pictures hang. ``gaps_m`` and ``longest_m``
    are there when VSI-Bench's questions are wanted.
    """
    things = tuple(
        Thing(
            t["object_id"], t["category"], t["colour"], tuple(t["low"]), tuple(t["high"]), t["on"],
            (t["front"][0], t["front"][1]) if t["front"] else None,
            t.get("hangs", "wall" if t["category"] == "picture" else None), longest,
        )
        for t, longest in zip(content["things"], content.get("longest_m") or repeat(None), strict=False)
    )  # fmt: skip
    landmarks = tuple(
        Landmark(m["kind"], (m["centre"][0], m["centre"][1]), (m["normal"][0], m["normal"][1]), m["width"])
        for m in content["landmarks"]
    )
    x0, y0, x1, y1 = content["bounds"]
    pillar = content["pillar"]
    return RoomFacts(
        scene_id=content["scene_id"],
        frame_ids=tuple(content["frame_ids"]),
        bounds=(x0, y0, x1, y1),
        pillar=None if pillar is None else (pillar[0], pillar[1], pillar[2], pillar[3]),
        things=things,
        landmarks=landmarks,
        visible=tuple({int(k): float(v) for k, v in shares.items()} for shares in content["visible"]),
        blocked=tuple(tuple(rect) for rect in content.get("blocked", ())),
        rectangular=content.get("rectangular", True),
        unnamed=tuple(tuple(rect) for rect in content.get("unnamed", ())),
        words=words.without(content.get("unsaid", ())),
        floor_m2=content.get("floor_m2"),
        gaps_m={(int(a), int(b)): float(gap) for a, b, gap in content.get("gaps_m", ())},
    )
