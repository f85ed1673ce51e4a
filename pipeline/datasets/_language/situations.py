"""Where somebody can stand or sit in a room, which way they look, and how a text says so (SQA3D's situations).

Directions have clear sectors (35 degrees around front, left, behind, right); what lies between two is in none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets._language.questions import View

Floats = NDArray[np.float64]
CLEAR = math.radians(35.0)
SECTORS = {"in front of me": 0.0, "on my left": np.pi / 2, "behind me": np.pi, "on my right": -np.pi / 2}


@dataclass(frozen=True)
class Situation:
    """``texts``: the situation and its alternatives; ``position`` (2,) m; ``heading`` radians from +x, counter-clockwise.

    ``named`` are the objects that the text already talks about: nothing is asked about their place.
    """

    texts: tuple[str, ...]
    position: Floats
    heading: float
    named: frozenset[int]

    def bearing(self, point: Floats) -> float:
        """Angle of a floor point against the heading, [-pi, pi), left positive."""
        angle = math.atan2(point[1] - self.position[1], point[0] - self.position[0])
        return (angle - self.heading + math.pi) % (2 * math.pi) - math.pi

    def turned(self, angle: float) -> Situation:
        """The same place after a turn."""
        return Situation(self.texts, self.position, self.heading + angle, self.named)


def sector(situation: Situation, point: Floats) -> str | None:
    """In which clear sector a point lies; None between two, or closer than 0.5 m."""
    if math.hypot(point[0] - situation.position[0], point[1] - situation.position[1]) < 0.5:
        return None
    bearing = situation.bearing(point)
    for name, middle in SECTORS.items():
        if abs((bearing - middle + math.pi) % (2 * math.pi) - math.pi) <= CLEAR:
            return name
    return None


def situations(view: View, balancer: Balancer) -> list[Situation]:
    """Places with a heading that text can name and where a person can stand or sit."""
    room = view.room
    found = [*_at_things(view, balancer), *_at_marks(room)]
    return [s for s in found if _standable(room, s)]


def _heading(direction: Floats) -> float:
    return float(np.arctan2(direction[1], direction[0]))


def _standable(room: RoomFacts, situation: Situation) -> bool:
    """Inside the room and in nothing else than what one sits on."""
    x, y = situation.position
    x0, y0, x1, y1 = room.bounds
    if not (x0 + 0.2 < x < x1 - 0.2 and y0 + 0.2 < y < y1 - 0.2):
        return False
    others = (t for t in room.things if t.on is None and not t.hung and t.object_id not in situation.named)
    blocks: list[tuple[float, ...]] = [(t.low[0], t.low[1], t.high[0], t.high[1]) for t in others]
    blocks += [*([room.pillar] if room.pillar else []), *room.blocked]
    return not any(a - 0.1 < x < c + 0.1 and b - 0.1 < y < d + 0.1 for a, b, c, d in blocks)


def _at_marks(room: RoomFacts) -> Iterator[Situation]:
    for kind in ("door", "window"):
        mark = room.single(kind)
        if mark is None:
            continue
        inward, centre = np.array(mark.normal), np.array(mark.centre)
        if kind == "door":
            texts = ("I have just come in through the door.", "I am standing at the door with my back to it.")
            yield Situation(texts, centre + 0.45 * inward, _heading(inward), frozenset())
        texts = (f"I am standing in front of the {kind} and facing it.", f"I am looking at the {kind} in front of me.")
        yield Situation(texts, centre + 0.7 * inward, _heading(-inward), frozenset())


def _at_things(view: View, balancer: Balancer) -> Iterator[Situation]:
    room = view.room
    floor = [t for t in room.things if t.on is None and not t.hung and t.object_id in view.named]
    for thing in floor:
        name = balancer.one(view.named[thing.object_id])
        own = frozenset([thing.object_id])
        if thing.front is not None:
            yield from _with_front(thing, name, own)
        for other in floor:
            facing = room.reference(other)
            if other is thing or facing is None or np.hypot(*(other.centre - thing.centre)[:2]) < 1.2:
                continue
            position = _beside(thing, other)
            texts = (
                f"I am standing by {name} and facing {facing}.",
                f"I am next to {name} and {facing} is in front of me.",
                f"I stand beside {name} and look at {facing}.",
            )
            yield Situation(texts, position, _heading(other.centre[:2] - position), own | {other.object_id})


def _with_front(thing: Thing, name: str, own: frozenset[int]) -> Iterator[Situation]:
    ahead = np.array(thing.front)
    half = float(np.abs(ahead) @ thing.size[:2]) / 2
    before = thing.centre[:2] + ahead * (half + 0.5)
    texts = (f"I am standing in front of {name} and facing it.", f"I am looking at {name} right in front of me.")
    yield Situation(texts, before, _heading(-ahead), own)
    texts = (f"I am standing in front of {name} with my back to it.", f"I stand with {name} right behind me.")
    yield Situation(texts, before, _heading(ahead), own)
    if thing.category in ("sofa", "chair"):
        texts = (f"I am sitting on {name}.", f"I just sat down on {name}.")
        yield Situation(texts, thing.centre[:2] + 0.1 * ahead, _heading(ahead), own)


def _beside(thing: Thing, other: Thing) -> Floats:
    """A spot 0.35 m off the side of ``thing`` that looks towards ``other``."""
    away = other.centre[:2] - thing.centre[:2]
    away = away / np.hypot(*away)
    reach = min(thing.size[k] / 2 / max(abs(away[k]), 1e-6) for k in (0, 1))
    spot: Floats = thing.centre[:2] + away * (reach + 0.35)
    return spot
