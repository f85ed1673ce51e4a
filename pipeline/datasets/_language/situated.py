"""SQA3D: somebody stands in the room, looks somewhere, and asks about what is around them.

Heading convention of the written rotation: a turn by the quaternion (0, 0, z, w) about the z axis, identity looks along +y.
An object between two sectors of direction is not asked about (see situations.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.datasets._film.catalog import CATEGORIES, number_word
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets._language.questions import View, color_question, view_of
from pipeline.datasets._language.situations import SECTORS, Situation, sector, situations

SHARES = {
    "what_near": 0.15, "what_color": 0.18, "is_where": 0.09, "is_side": 0.10, "how_many": 0.09, "how_turn": 0.05,
    "can_see": 0.06, "can_tell": 0.04, "which_closer": 0.06, "which_direction": 0.06, "are_there": 0.04, "turned": 0.08,
}  # fmt: skip
"""Aimed shares of the families; the first word gives SQA3D's question types what/is/how/can/which/others."""

Asked = tuple[str, str, str]
"""Answer key, question, answer."""


@dataclass(frozen=True)
class Surroundings:
    """A situation with the sector of every object (None: between two, or at one's feet).

    ``usable``: objects that some view shows and that the situation's text does not name; only these are asked about.
    """

    view: View
    situation: Situation
    places: tuple[str | None, ...]
    distances: tuple[float, ...]
    usable: frozenset[int]

    def things(self) -> Iterator[tuple[Thing, str | None]]:
        """Usable objects with their sectors."""
        for thing, place in zip(self.view.room.things, self.places, strict=True):
            if thing.object_id in self.usable:
                yield thing, place

    def distance(self, thing: Thing) -> float:
        """Metres on the floor from the person to the object's centre."""
        return self.distances[thing.object_id]

    def clear(self, category: str) -> bool:
        """Every object of the category is usable and clearly in one sector."""
        ids = [t.object_id for t in self.view.room.things if t.category == category]
        return all(i in self.usable and self.places[i] is not None for i in ids)


def surroundings(view: View, situation: Situation) -> Surroundings:
    """Sectors and distances of the objects around a situation."""
    room = view.room
    return Surroundings(
        view,
        situation,
        tuple(sector(situation, t.centre) for t in room.things),
        tuple(math.hypot(t.centre[0] - situation.position[0], t.centre[1] - situation.position[1]) for t in room.things),
        room.seen - situation.named,
    )


def nearest_in(around: Surroundings, place: str) -> Thing | None:
    """The object that is clearly the nearest of a sector; nothing between sectors may be as near."""
    room = around.view.room
    free = [(around.distance(t), t, p) for t, p in zip(room.things, around.places, strict=True) if t.on is None]
    inside = sorted(((d, t) for d, t, p in free if p == place), key=lambda pair: pair[0])
    if not inside or inside[0][1].object_id not in around.usable:
        return None
    nearest = inside[0][1]
    if nearest.hangs == "ceiling":
        return None
    rivals = [d for d, t, p in free if t is not nearest and p in (place, None)]
    for x0, y0, x1, y1 in room.unnamed:
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        if sector(around.situation, middle) in (place, None):
            rivals.append(float(np.hypot(*(middle - around.situation.position))))
    carries = any(t.on == nearest.object_id for t in room.things)
    return None if carries or min(rivals, default=99.0) < inside[0][0] + 0.4 else nearest


def _what_near(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for place in SECTORS:
        thing = nearest_in(around, place)
        if thing is not None:
            text = balancer.one([f"What is the closest object {place}?", f"What object is nearest {place}?"])
            yield thing.category, text, thing.category


def _what_color(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for thing, place in around.things():
        same = [p for t, p in around.things() if t.category == thing.category]
        if place and around.clear(thing.category) and same.count(place) == 1:
            yield thing.colour, color_question(f"the {thing.category} {place}", thing, balancer), thing.colour


def _single(around: Surroundings) -> Iterator[tuple[Thing, str, str]]:
    """Objects with their sector and a phrase that means them alone."""
    for thing, place in around.things():
        name = around.view.room.reference(thing)
        if place is not None and name is not None:
            yield thing, place, name


def _is_where(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for _, place, name in _single(around):
        yield "yes", f"Is {name} {place}?", "yes"
        other = balancer.one([p for p in SECTORS if p != place])
        yield "no", f"Is {name} {other}?", "no"


def _is_side(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for _, place, name in _single(around):
        if place in ("on my left", "on my right"):
            two = balancer.one(["left or right", "right or left"])
            yield place, f"Is {name} on my {two}?", place.removeprefix("on my ")
        else:
            two = balancer.one(["in front of me or behind me", "behind me or in front of me"])
            yield place, f"Is {name} {two}?", "behind" if place == "behind me" else "in front"


def _how_many(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for category in around.view.room.words.categories:
        if not around.clear(category):
            continue
        places = [p for t, p in around.things() if t.category == category]
        for place in SECTORS:
            number = number_word(places.count(place))
            if places or balancer.rng.random() < 0.1:
                yield number, f"How many {CATEGORIES[category].plural} are {place}?", number


def _how_turn(around: Surroundings, _: Balancer) -> Iterator[Asked]:
    turns = {"on my left": "left", "on my right": "right", "behind me": "around"}
    for _thing, place, name in _single(around):
        if place in turns:
            yield turns[place], f"How should I turn to face {name}?", turns[place]


def _can_see(around: Surroundings, _: Balancer) -> Iterator[Asked]:
    for _thing, place, name in _single(around):
        answer = "yes" if place == "in front of me" else "no"
        yield answer, f"Can I see {name} without turning?", answer


def _can_tell(around: Surroundings, _: Balancer) -> Iterator[Asked]:
    for thing, place in around.things():
        same = [p for t, p in around.things() if t.category == thing.category]
        if place and around.clear(thing.category) and same.count(place) == 1 and thing.category != "plant":
            yield thing.colour, f"Can you tell me the color of the {thing.category} {place}?", thing.colour


def _which_closer(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    single = [(t, name) for t, _, name in _single(around)]
    for (a, first), (b, second) in combinations(single, 2):
        if "ceiling" in (a.hangs, b.hangs):
            continue
        if a.category == b.category or abs(around.distance(a) - around.distance(b)) < 0.7:
            continue
        closer = a if around.distance(a) < around.distance(b) else b
        names = (first, second) if balancer.rng.random() < 0.5 else (second, first)
        yield closer.category, f"Which is closer to me, {names[0]} or {names[1]}?", closer.category


def _which_direction(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    words = {"on my left": "left", "on my right": "right", "behind me": "behind", "in front of me": "in front"}
    for _, place, name in _single(around):
        text = balancer.one([f"Which direction is {name} from me?", f"Which way is {name}?"])
        yield words[place], text, words[place]


def _are_there(around: Surroundings, _: Balancer) -> Iterator[Asked]:
    for category in sorted(around.view.room.counts):
        if around.clear(category):
            places = [p for t, p in around.things() if t.category == category]
            for place in SECTORS:
                answer = "yes" if place in places else "no"
                yield answer, f"Are there any {CATEGORIES[category].plural} {place}?", answer


def _turned(around: Surroundings, _: Balancer) -> Iterator[Asked]:
    """Return what is nearest ahead after a turn: the question needs the heading twice."""
    for word, angle in (("left", np.pi / 2), ("right", -np.pi / 2), ("around", np.pi)):
        thing = nearest_in(surroundings(around.view, around.situation.turned(angle)), "in front of me")
        if thing is not None:
            yield thing.category, f"If I turn {word}, what is the closest object in front of me?", thing.category


FAMILIES: dict[str, Callable[[Surroundings, Balancer], Iterator[Asked]]] = {
    "what_near": _what_near, "what_color": _what_color, "is_where": _is_where, "is_side": _is_side,
    "how_many": _how_many, "how_turn": _how_turn, "can_see": _can_see, "can_tell": _can_tell,
    "which_closer": _which_closer, "which_direction": _which_direction, "are_there": _are_there, "turned": _turned,
}  # fmt: skip
"""Families of questions: each yields (answer key, question, answer)."""


def sqa3d(room: RoomFacts, balancer: Balancer, count: int, first_id: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """``count`` (question, annotation) pairs in the official format, ids counted from ``first_id``."""
    view = view_of(room)
    stands = situations(view, balancer)
    chosen = [stands[int(i)] for i in balancer.rng.permutation(len(stands))[: count + 3]]
    around = [surroundings(view, s) for s in chosen]
    pools = {
        family: [(key, (s, text, answer)) for s in around for key, text, answer in maker(s, balancer)]
        for family, maker in FAMILIES.items()
    }
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    while len(pairs) < count and any(pools.values()):
        family = next(name for name in balancer.most_wanted(SHARES) if pools[name])
        where, text, answer = balancer.pick(family, pools[family])
        pairs.append(_pair(room, where.situation, text, answer, first_id + len(pairs), balancer))
        for name, pool in pools.items():
            pools[name] = [c for c in pool if c[1][1] != text and (c[1][0] is not where or len(around) < count)]
    return pairs


def _pair(
    room: RoomFacts, situation: Situation, text: str, answer: str, number: int, balancer: Balancer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Question and annotation entries of one question."""
    order = [situation.texts[int(i)] for i in balancer.rng.permutation(len(situation.texts))]
    half = (situation.heading - np.pi / 2) / 2
    question = {
        "scene_id": room.scene_id,
        "situation": order[0],
        "alternative_situation": order[1:],
        "question": text,
        "question_id": number,
    }
    x, y = (round(float(v), 4) for v in situation.position)
    annotation = {
        "scene_id": room.scene_id,
        "question_type": "N/A",
        "answer_type": "other",
        "question_id": number,
        "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}],
        "rotation": {"_x": 0, "_y": 0, "_z": round(float(np.sin(half)), 6), "_w": round(float(np.cos(half)), 6)},
        "position": {"x": x, "y": y, "z": 0},
    }
    return question, annotation
