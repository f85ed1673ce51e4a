"""Routes from object to object for VSI-Bench's route planning: clear turns (left, right, back), free straight walks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.facts import RoomFacts, Thing

Floats = NDArray[np.float64]
STEP_M = 0.1
WALK_M = 1.0
"""Shortest walk from one object to the next, between their centres."""
CANDIDATES = 12
"""Routes of a room that are worth offering; the search stops there."""


def floor_gap(a: Thing, b: Thing) -> float:
    """Metres on the floor between the centres of two objects."""
    return math.hypot(a.centre[0] - b.centre[0], a.centre[1] - b.centre[1])


def bearing_deg(at: Floats, facing: Floats, point: Floats) -> float:
    """Angle in degrees [-180, 180) from the direction at -> facing to at -> point; left is positive."""
    ahead = math.atan2(facing[1] - at[1], facing[0] - at[0])
    return (math.degrees(math.atan2(point[1] - at[1], point[0] - at[0]) - ahead) + 180.0) % 360.0 - 180.0


def turn(angle: float) -> str | None:
    """``Turn Left``, ``Turn Right`` or ``Turn Back``; None where it is not clear (degrees, left positive)."""
    if abs(angle) >= 155:
        return "Turn Back"
    if 55 <= abs(angle) <= 125:
        return "Turn Left" if angle > 0 else "Turn Right"
    return None


def free_walk(room: RoomFacts, a: Thing, b: Thing) -> bool:
    """Return whether nothing else stands on the straight line between two objects, nor what is no floor (a cut-off corner)."""
    blocks: list[Any] = [
        (t.low[0], t.low[1], t.high[0], t.high[1])
        for t in room.things
        if t.on is None and not t.hung and t.object_id not in (a.object_id, b.object_id)
    ]
    blocks += [*([room.pillar] if room.pillar else []), *room.blocked]
    steps = np.linspace(0.0, 1.0, max(2, round(floor_gap(a, b) / STEP_M)))[:, None]
    line = a.centre[:2] + steps * (b.centre[:2] - a.centre[:2])
    return not any(
        bool(((line[:, 0] > x0) & (line[:, 0] < x1) & (line[:, 1] > y0) & (line[:, 1] < y1)).any()) for x0, y0, x1, y1 in blocks
    )


def routes(room: RoomFacts, things: Sequence[Thing], balancer: Balancer) -> Iterator[tuple[str, str, list[str]]]:
    """(question, right turns, three wrong pairs of turns) of routes with two turns among ``things`` on the floor."""
    floor = [t for t in things if t.on is None and not t.hung]
    paths = list(permutations(floor, 4))
    found = 0
    for number in balancer.rng.permutation(len(paths)):
        start, facing, middle, end = paths[int(number)]
        turns = _turns(room, start, facing, middle, end)
        if turns is None:
            continue
        names = [t.category for t in (start, facing, middle, end)]
        kinds = ("Turn Left", "Turn Right", "Turn Back")
        others = [f"{a}, {b}" for a in kinds for b in kinds if (a, b) != turns]
        wrong = [others[int(i)] for i in balancer.rng.permutation(len(others))[:3]]
        yield _text(names), ", ".join(turns), wrong
        found += 1
        if found == CANDIDATES:
            return


def _turns(room: RoomFacts, start: Thing, facing: Thing, middle: Thing, end: Thing) -> tuple[str, str] | None:
    if min(floor_gap(start, facing), floor_gap(start, middle), floor_gap(middle, end)) < WALK_M:
        return None
    first = turn(bearing_deg(start.centre, facing.centre, middle.centre))
    onward = 2 * middle.centre - start.centre
    second = turn(bearing_deg(middle.centre, onward, end.centre))
    if first is None or second is None or not (free_walk(room, start, middle) and free_walk(room, middle, end)):
        return None
    return first, second


def _text(names: Sequence[str]) -> str:
    start, facing, middle, end = names
    return (
        f"You are a robot beginning at the {start} facing the {facing}. You want to navigate to the {end}. "
        "You will perform the following actions (Note: for each [please fill in], choose either 'turn back,' 'turn left,' or "
        "'turn right.'): "
        f"1. [please fill in] 2. Go forward until the {middle}. 3. [please fill in] 4. Go forward until the {end}. "
        "You have reached the final destination."
    )
