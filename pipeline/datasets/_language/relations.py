"""Relations between objects of a room, each with the objects it clearly holds for and those that are a matter of taste.

A relation may be used in a sentence only when no borderline object would change what the sentence means; so descriptions
are right for everybody, not only by the letter of a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._film.catalog import CATEGORIES, article
from pipeline.datasets._language.facts import Landmark, RoomFacts, Thing

Floats = NDArray[np.float64]
Ids = frozenset[int]


@dataclass(frozen=True, slots=True)
class Relation:
    """``phrase`` follows a noun ("next to the desk"); ``holds`` ids it is clearly true of, ``maybe`` those plus borderline.

    ``category``: the phrase compares objects of this category only ("closest to the door"). ``has``: it is said with
    "has", not "is" ("with a lamp on it"). ``anchor``: the object id it refers to.
    """

    kind: str
    phrase: str
    holds: Ids
    maybe: Ids
    category: str | None = None
    has: bool = False
    anchor: int | None = None

    @property
    def superlative(self) -> bool:
        """Return whether it picks one out of several ("closest to"), so that the noun takes "the"."""
        return self.category is not None

    @property
    def place(self) -> str:
        """Return what it refers to: its last words, equal for relations with the same door, window or object."""
        return " ".join(self.phrase.split()[-2:])

    def sentence(self, subject: str = "it") -> str:
        """``it is next to the desk`` / ``it has a lamp on it``."""
        plain = self.phrase.removeprefix("with ").removeprefix("that is ")
        return f"{subject} {'has' if self.has else 'is'} {plain}"


def rect_gap(a: Thing, b: Thing) -> float:
    """Distance in metres between two footprints."""
    x, y = (max(a.low[k] - b.high[k], b.low[k] - a.high[k], 0.0) for k in (0, 1))
    return math.hypot(x, y)


def footprint_gap(rect: Sequence[float], thing: Thing) -> float:
    """Distance in metres between a rectangle x0,y0,x1,y1 and an object's footprint."""
    x, y = (max(rect[k] - thing.high[k], thing.low[k] - rect[k + 2], 0.0) for k in (0, 1))
    return math.hypot(x, y)


def landmark_gap(thing: Thing, mark: Landmark) -> float:
    """Distance in metres from a footprint to a door or window in its wall."""
    along = np.abs(np.array([mark.normal[1], mark.normal[0]])) * mark.width / 2
    low, high = np.array(mark.centre) - along, np.array(mark.centre) + along
    gaps = np.maximum(np.maximum(low - np.array(thing.high[:2]), np.array(thing.low[:2]) - high), 0.0)
    return math.hypot(gaps[0], gaps[1])


def floor_distance(thing: Thing, point: Floats) -> float:
    """Distance on the floor plan from an object's centre to a point (2,), metres."""
    return math.hypot(thing.centre[0] - point[0], thing.centre[1] - point[1])


def relations(room: RoomFacts) -> list[Relation]:
    """All relations of a room that are clearly true of at least one object."""
    found: list[Relation] = []
    for maker in (_on, _holding, _near, _in_front, _above, _at_marks, _corner, _ranks, _sizes, _sides, _middle):
        found += [r for r in maker(room) if r.holds]
    return found


def _ids(things: list[Thing], test: Callable[[Thing], bool]) -> Ids:
    return frozenset(t.object_id for t in things if test(t))


def _on(room: RoomFacts) -> Iterator[Relation]:
    for support in room.things:
        name = room.reference(support)
        above = _ids(list(room.things), lambda t, s=support: t.on == s.object_id)  # type: ignore[misc]
        if name and above:
            yield Relation("on", f"on {name}", above, above, anchor=support.object_id)
    for category in room.counts:
        ids = {t.object_id for t in room.of(category)}
        above = _ids(list(room.things), lambda t, s=ids: t.on in s)  # type: ignore[misc]
        if room.counts[category] > 1 and above:
            yield Relation("on", f"on {article(category)} {category}", above, above)


def _holding(room: RoomFacts) -> Iterator[Relation]:
    for category in sorted({t.category for t in room.things if t.on is not None}):
        holders = frozenset(t.on for t in room.of(category) if t.on is not None)
        yield Relation("holding", f"with {article(category)} {category} on it", holders, holders, has=True)


def _near(room: RoomFacts) -> Iterator[Relation]:
    floor = [t for t in room.things if t.on is None and not t.hung]
    for anchor in floor:
        name = room.reference(anchor)
        if name is None:
            continue
        others = [t for t in floor if t is not anchor]
        holds = _ids(others, lambda t, a=anchor: rect_gap(t, a) < 0.45)  # type: ignore[misc]
        maybe = _ids(others, lambda t, a=anchor: rect_gap(t, a) < 0.70)  # type: ignore[misc]
        for word in ("next to", "beside", "close to"):
            yield Relation("near", f"{word} {name}", holds, maybe, anchor=anchor.object_id)


def front_place(thing: Thing, anchor: Thing) -> tuple[float, float]:
    """(metres in front of the anchor's front face, metres sideways from its middle)."""
    assert anchor.front is not None
    ahead = np.array(anchor.front)
    offset = thing.centre[:2] - anchor.centre[:2]
    half = float(np.abs(ahead) @ anchor.size[:2]) / 2
    return float(offset @ ahead) - half, abs(float(offset @ np.array([-ahead[1], ahead[0]])))


def _in_front(room: RoomFacts) -> Iterator[Relation]:
    floor = [t for t in room.things if t.on is None and not t.hung]
    for anchor in floor:
        name = room.reference(anchor)
        if name is None or anchor.front is None or anchor.category in ("chair", "nightstand"):
            continue
        width = float(np.abs(np.array(anchor.front)[::-1]) @ anchor.size[:2])
        places = {t.object_id: front_place(t, anchor) for t in floor if t is not anchor}
        holds = frozenset(i for i, (d, s) in places.items() if 0.1 < d < 1.2 and s < width / 2)
        maybe = frozenset(i for i, (d, s) in places.items() if 0.0 < d < 2.0 and s < width / 2 + 0.35)
        yield Relation("front", f"in front of {name}", holds, maybe, anchor=anchor.object_id)


def _above(room: RoomFacts) -> Iterator[Relation]:
    hung = [t for t in room.things if t.hung]
    for anchor in room.things:
        name = room.reference(anchor)
        if name is None or anchor.on is not None or anchor.hung or anchor.high[2] > 1.2:
            continue
        holds = _ids(hung, lambda t, a=anchor: rect_gap(t, a) < 0.15)  # type: ignore[misc]
        maybe = _ids(hung, lambda t, a=anchor: rect_gap(t, a) < 0.5)  # type: ignore[misc]
        yield Relation("above", f"above {name}", holds, maybe, anchor=anchor.object_id)


def _at_marks(room: RoomFacts) -> Iterator[Relation]:
    floor = [t for t in room.things if t.on is None and t.hangs != "ceiling"]
    for kind in ("door", "window"):
        mark = room.single(kind)
        if mark is None:
            continue
        holds = _ids(floor, lambda t, m=mark: landmark_gap(t, m) < 0.6)  # type: ignore[misc]
        maybe = _ids(floor, lambda t, m=mark: landmark_gap(t, m) < 1.0)  # type: ignore[misc]
        for word in ("next to", "near", "by"):
            yield Relation("mark", f"{word} the {kind}", holds, maybe)


def _corner(room: RoomFacts) -> Iterator[Relation]:
    if not room.rectangular:
        return
    x0, y0, x1, y1 = room.bounds
    floor = [t for t in room.things if t.on is None and not t.hung]
    gaps = {t.object_id: max(min(t.low[0] - x0, x1 - t.high[0]), min(t.low[1] - y0, y1 - t.high[1])) for t in floor}
    holds = frozenset(i for i, gap in gaps.items() if gap < 0.4)
    for phrase in ("in the corner", "in a corner of the room"):
        yield Relation("corner", phrase, holds, frozenset(i for i, gap in gaps.items() if gap < 0.75))


def _middle(room: RoomFacts) -> Iterator[Relation]:
    if not room.rectangular:
        return
    x0, y0, x1, y1 = room.bounds
    floor = [t for t in room.things if t.on is None and not t.hung]
    gaps = {t.object_id: min(t.low[0] - x0, x1 - t.high[0], t.low[1] - y0, y1 - t.high[1]) for t in floor}
    holds = frozenset(i for i, gap in gaps.items() if gap > 1.2)
    yield Relation("middle", "in the middle of the room", holds, frozenset(i for i, gap in gaps.items() if gap > 0.9))


def _ends(values: dict[int, float], margin: float) -> Iterator[tuple[bool, Ids, Ids]]:
    """For the smallest and the largest: (is largest, ids that clearly are it, ids within the margin of it)."""
    for largest in (False, True):
        sign = -1.0 if largest else 1.0
        best = min(values, key=lambda i: sign * values[i])
        close = frozenset(i for i in values if sign * (values[i] - values[best]) < margin)
        yield largest, frozenset([best]), close


def _ranks(room: RoomFacts) -> Iterator[Relation]:
    """Closest to and farthest from a landmark or a single large object, among the objects of one category."""
    places: list[tuple[str, Floats, int | None]] = []
    for kind in ("door", "window"):
        mark = room.single(kind)
        if mark:
            places.append((f"the {kind}", np.array(mark.centre), None))
    for thing in room.things:
        if CATEGORIES[thing.category].large and room.counts[thing.category] == 1:
            places.append((f"the {thing.category}", thing.centre[:2], thing.object_id))
    for category, count in room.counts.items():
        for name, point, anchor in places if count > 1 else ():
            distances = {t.object_id: floor_distance(t, point) for t in room.of(category)}
            for largest, holds, maybe in _ends(distances, 0.5):
                phrase = f"farthest from {name}" if largest else f"closest to {name}"
                yield Relation("far" if largest else "close", phrase, holds, maybe, category=category, anchor=anchor)


def _sizes(room: RoomFacts) -> Iterator[Relation]:
    for category, count in room.counts.items():
        if count < 2:
            continue
        volumes = {t.object_id: float(np.log(np.prod(t.size))) for t in room.of(category)}
        for largest, holds, maybe in _ends(volumes, 0.45):
            word = ("larger" if largest else "smaller") if count == 2 else ("largest" if largest else "smallest")
            yield Relation("size", f"that is the {word} one", holds, maybe, category=category)


def _sides(room: RoomFacts) -> Iterator[Relation]:
    """Left and right among the objects of one category, as seen from the door."""
    door = room.single("door")
    for category, count in room.counts.items() if door else ():
        if count < 2 or door is None:
            continue
        ahead = np.array(door.normal)
        bearings = {}
        for thing in room.of(category):
            offset = thing.centre[:2] - np.array(door.centre) + 0.3 * ahead
            bearings[thing.object_id] = float(np.arctan2(offset @ np.array([-ahead[1], ahead[0]]), offset @ ahead))
        for left, holds, maybe in _ends(bearings, 0.25):
            side = "left" if left else "right"
            where = f"on the {side}" if count == 2 else f"farthest to the {side}"
            yield Relation("side", f"{where} when seen from the door", holds, maybe, category=category)
