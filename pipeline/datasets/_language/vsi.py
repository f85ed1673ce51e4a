"""VSI-Bench questions about a room: counts, distances, sizes, directions, routes and order of appearance, in the official form.

Fields and wordings of the official questions (Yang et al., "Thinking in Space", CVPR 2025). Only objects that some view
shows are asked about, and only where the answer is clear by a margin (metres, degrees), so that it is right for everybody.
Distances are between the nearest points of two surfaces, and sizes those of an object's own box: furniture stands askew and
does not fill the boxes along the axes (see distances.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

from pipeline.datasets._film.film import SEEN_SHARE
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets._language.view_questions import HINT_SHARE
from pipeline.datasets._language.vsi_routes import bearing_deg, floor_gap, routes

CLOSER_M = 0.3
"""By how much the nearest of several objects must be nearer than the second."""
APART_M = 0.8
"""Least distance of the floor positions between which a direction is asked."""
LETTERS = "ABCD"
FAMILY_SHARE = 0.1

Asked = tuple[str, dict[str, Any]]
"""Answer key for the balance, and the entry's question, options and ground_truth."""


def vsibench(room: RoomFacts, balancer: Balancer, count: int, first_id: int, dataset: str = "rooms") -> list[dict[str, Any]]:
    """Up to ``count`` questions in the official format, ids counted from ``first_id``, no question twice."""
    pools = {kind: list(maker(room, balancer)) for kind, maker in FAMILIES.items()}
    entries: list[dict[str, Any]] = []
    while len(entries) < count and any(pools.values()):
        kind = next(k for k in balancer.most_wanted(dict.fromkeys(FAMILIES, FAMILY_SHARE)) if pools[k])
        content = balancer.pick(kind, pools[kind])
        pools[kind] = [c for c in pools[kind] if c[1]["question"] != content["question"]]
        head = {"id": first_id + len(entries), "dataset": dataset, "scene_name": room.scene_id, "question_type": kind}
        entries.append(head | content)
    return entries


def _number(question: str, value: float) -> Asked:
    text = f"{value:g}"
    return text, {"question": question, "ground_truth": text, "options": None}


def _choice(question: str, right: str, wrong: Sequence[str], balancer: Balancer) -> Asked:
    """Options in random order, each behind its letter; the key is the right one's letter."""
    texts = [right, *wrong]
    order = [int(i) for i in balancer.rng.permutation(len(texts))]
    letter = LETTERS[order.index(0)]
    options = [f"{LETTERS[place]}. {texts[i]}" for place, i in enumerate(order)]
    return letter, {"question": question, "ground_truth": letter, "options": options}


def single_things(room: RoomFacts) -> list[Thing]:
    """Objects that are seen and the only ones of their category: they can be named by it."""
    return [t for t in room.things if room.counts[t.category] == 1 and t.object_id in room.seen]


def _counting(room: RoomFacts, _: Balancer) -> Iterator[Asked]:
    for category, number in sorted(room.counts.items()):
        if number > 1 and room.all_seen(room.of(category)):
            yield _number(f"How many {category}(s) are in this room?", number)


def _abs_distance(room: RoomFacts, balancer: Balancer) -> Iterator[Asked]:
    text = "Measuring from the closest point of each object, what is the distance between the {} and the {} (in meters)?"
    for pair in combinations(single_things(room), 2):
        distance = round(room.gap_m(*pair), 1)
        a, b = pair if balancer.rng.random() < 0.5 else pair[::-1]
        if distance >= 0.5:
            yield _number(text.format(a.category, b.category), distance)


def _object_size(room: RoomFacts, _: Balancer) -> Iterator[Asked]:
    for thing in single_things(room):
        text = "What is the length of the longest dimension (length, width, or height) of the {}, measured in centimeters?"
        yield _number(text.format(thing.category), round(100 * (thing.longest_m or float(thing.size.max()))))


def _room_size(room: RoomFacts, _: Balancer) -> Iterator[Asked]:
    text = (
        "What is the size of this room (in square meters)? \n"
        "If multiple rooms are shown, estimate the size of the combined space."
    )
    yield _number(text, round(room.area_m2(), 1))


def _rel_distance(room: RoomFacts, balancer: Balancer) -> Iterator[Asked]:
    seen = [c for c in sorted(room.counts) if room.all_seen(room.of(c))]
    for target in single_things(room):
        others = [c for c in seen if c != target.category]
        chosen = [others[int(i)] for i in balancer.rng.permutation(len(others))[: len(LETTERS)]]
        distance = {c: min(room.gap_m(t, target) for t in room.of(c)) for c in chosen}
        ranked = sorted(chosen, key=lambda c: distance[c])
        if len(ranked) < 3 or distance[ranked[1]] - distance[ranked[0]] < CLOSER_M:
            continue
        text = (
            f"Measuring from the closest point of each object, which of these objects ({', '.join(chosen)}) is the closest to "
            f"the {target.category}?\nIf there are multiple instances of an object category, measure to the closest."
        )
        yield _choice(text, ranked[0], ranked[1:], balancer)


def _directions(room: RoomFacts) -> Iterator[tuple[str, str, float]]:
    """Beginnings of direction questions, what is faced, and the angle (degrees, left positive) of the object in question."""
    for at, facing, asked in permutations(single_things(room), 3):
        if at.hangs == "ceiling":
            continue  # nobody stands by a lamp overhead
        if min(floor_gap(at, facing), floor_gap(at, asked), floor_gap(facing, asked)) >= APART_M:
            angle = bearing_deg(at.centre, facing.centre, asked.centre)
            start = f"If I am standing by the {at.category} and facing the {facing.category}, is the {asked.category} to"
            yield start, facing.category, angle


def _direction_easy(room: RoomFacts, balancer: Balancer) -> Iterator[Asked]:
    for start, facing, angle in _directions(room):
        if 20 <= abs(angle) <= 160:
            right, wrong = ("left", "right") if angle > 0 else ("right", "left")
            yield _choice(f"{start} the left or the right of the {facing}?", right, [wrong], balancer)


def _direction_medium(room: RoomFacts, balancer: Balancer) -> Iterator[Asked]:
    for start, _, angle in _directions(room):
        size = abs(angle)
        if size >= 150 or 45 <= size <= 120:
            right = "back" if size >= 150 else ("left" if angle > 0 else "right")
            text = (
                f"{start} my left, right, or back?\n"
                "An object is to my back if I would have to turn at least 135 degrees in order to face it."
            )
            yield _choice(text, right, [d for d in ("left", "right", "back") if d != right], balancer)


def _direction_hard(room: RoomFacts, balancer: Balancer) -> Iterator[Asked]:
    for start, _, angle in _directions(room):
        if 15 <= abs(angle) <= 75 or 105 <= abs(angle) <= 165:
            right = f"{'front' if abs(angle) < 90 else 'back'}-{'left' if angle > 0 else 'right'}"
            text = (
                f"{start} my front-left, front-right, back-left, or back-right?\nThe directions refer to the quadrants of a "
                "Cartesian plane (if I am standing at the origin and facing along the positive y-axis)."
            )
            corners = ("front-left", "front-right", "back-left", "back-right")
            yield _choice(text, right, [d for d in corners if d != right], balancer)


def _first_views(room: RoomFacts) -> dict[str, int]:
    """Category -> the view that shows it first, where no earlier view gives a hint of it."""
    category = {t.object_id: t.category for t in room.things}
    first: dict[str, int] = {}
    hinted: set[str] = set()
    for view, shares in enumerate(room.visible):
        clear = {category[i] for i, share in shares.items() if share >= SEEN_SHARE}
        for name in sorted(clear - hinted):
            first.setdefault(name, view)
        hinted |= {category[i] for i, share in shares.items() if share >= HINT_SHARE}
    return first


def _appearance(room: RoomFacts, balancer: Balancer) -> Iterator[Asked]:
    """Three or four categories that come into view one after the other, a view apart at least."""
    first = _first_views(room)
    by_view = {view: sorted(c for c in first if first[c] == view) for view in sorted(set(first.values()))}
    if len(by_view) < 3:
        return
    right = [balancer.one(names) for names in by_view.values()][: len(LETTERS)]
    asked = [right[int(i)] for i in balancer.rng.permutation(len(right))]
    orders = [list(p) for p in permutations(right) if list(p) != right]
    wrong = [", ".join(orders[int(i)]) for i in balancer.rng.permutation(len(orders))[:3]]
    text = f"What will be the first-time appearance order of the following categories in the video: {', '.join(asked)}?"
    yield _choice(text, ", ".join(right), wrong, balancer)


def _routes(room: RoomFacts, balancer: Balancer) -> Iterator[Asked]:
    for text, right, wrong in routes(room, single_things(room), balancer):
        yield _choice(text, right, wrong, balancer)


FAMILIES: dict[str, Callable[[RoomFacts, Balancer], Iterator[Asked]]] = {
    "object_counting": _counting,
    "object_abs_distance": _abs_distance,
    "object_size_estimation": _object_size,
    "room_size_estimation": _room_size,
    "object_rel_distance": _rel_distance,
    "object_rel_direction_easy": _direction_easy,
    "object_rel_direction_medium": _direction_medium,
    "object_rel_direction_hard": _direction_hard,
    "route_planning": _routes,
    "obj_appearance_order": _appearance,
}
"""The official question types, each with its candidates (answer key, content)."""
