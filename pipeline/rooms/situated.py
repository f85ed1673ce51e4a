"""SQA3D: somebody stands in the room, looks somewhere, and asks about what is around them.

Heading convention of the written rotation: a turn by the quaternion (0, 0, z, w) about the z axis, identity looks along +y.
Directions have clear sectors (35 degrees around front, left, behind, right); an object between two sectors is not asked about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.rooms.balance import Balancer
from pipeline.rooms.catalog import CATEGORIES, NUMBERS
from pipeline.rooms.facts import RoomFacts, Thing
from pipeline.rooms.questions import View, color_question, view_of

Floats = NDArray[np.float64]
CLEAR = np.radians(35.0)
SECTORS = {"in front of me": 0.0, "on my left": np.pi / 2, "behind me": np.pi, "on my right": -np.pi / 2}
SHARES = {
    "what_near": 0.15, "what_color": 0.18, "is_where": 0.09, "is_side": 0.10, "how_many": 0.09, "how_turn": 0.05,
    "can_see": 0.06, "can_tell": 0.04, "which_closer": 0.06, "which_direction": 0.06, "are_there": 0.04, "turned": 0.08,
}  # fmt: skip
"""Aimed shares of the families; the first word gives SQA3D's question types what/is/how/can/which/others."""


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
        """Angle of a floor point against the heading, (-pi, pi], left positive."""
        away = point - self.position
        return float((np.arctan2(away[1], away[0]) - self.heading + np.pi) % (2 * np.pi) - np.pi)

    def turned(self, angle: float) -> Situation:
        """The same place after a turn."""
        return Situation(self.texts, self.position, self.heading + angle, self.named)


def sector(situation: Situation, point: Floats) -> str | None:
    """In which clear sector a point lies; None between two, or closer than 0.5 m."""
    if np.hypot(*(point - situation.position)) < 0.5:
        return None
    bearing = situation.bearing(point)
    for name, middle in SECTORS.items():
        if abs((bearing - middle + np.pi) % (2 * np.pi) - np.pi) <= CLEAR:
            return name
    return None


# ----------------------------------------------------------------- situations


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
    blocks = [(t.low[0], t.low[1], t.high[0], t.high[1]) for t in room.things if t.on is None and not t.hung
              and t.object_id not in situation.named]  # fmt: skip
    blocks += [room.pillar] if room.pillar else []
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


# ------------------------------------------------------------------ questions

Asked = tuple[str, str, str]
"""Answer key, question, answer."""


@dataclass(frozen=True)
class Surroundings:
    """A situation with the clear sector of every shown object that its text does not name (None: between two)."""

    view: View
    situation: Situation
    places: dict[int, str | None]

    def things(self) -> Iterator[tuple[Thing, str | None]]:
        """Objects with their sectors."""
        for object_id, place in self.places.items():
            yield self.view.room.things[object_id], place

    def distance(self, thing: Thing) -> float:
        """Metres on the floor from the person to the object's centre."""
        return float(np.hypot(*(thing.centre[:2] - self.situation.position)))

    def clear(self, category: str) -> bool:
        """Every object of the category is shown, not named, and clearly in one sector."""
        return all(self.places.get(t.object_id) is not None for t in self.view.room.of(category))


def surroundings(view: View, situation: Situation) -> Surroundings:
    """Sectors of the objects around a situation."""
    places = {
        t.object_id: sector(situation, t.centre[:2])
        for t in view.room.things
        if t.object_id in view.room.seen and t.object_id not in situation.named
    }
    return Surroundings(view, situation, places)


def nearest_in(around: Surroundings, place: str) -> Thing | None:
    """The object that is clearly the nearest of a sector; nothing between sectors may be as near."""
    carrying = {t.on for t in around.view.room.things if t.on is not None}
    free = [(around.distance(t), t, p) for t, p in around.things() if t.on is None]
    inside = sorted(((d, t) for d, t, p in free if p == place), key=lambda pair: pair[0])
    if not inside or inside[0][1].object_id in carrying:
        return None
    rivals = [d for d, t, p in free if t is not inside[0][1] and p in (place, None)]
    return inside[0][1] if min(rivals, default=99.0) > inside[0][0] + 0.4 else None


def _what_near(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for place in SECTORS:
        thing = nearest_in(around, place)
        if thing is not None:
            text = balancer.one([f"What is the closest object {place}?", f"What object is closest {place}?"])
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
    for category in CATEGORIES:
        if not around.clear(category):
            continue
        places = [p for t, p in around.things() if t.category == category]
        for place in SECTORS:
            number = NUMBERS[places.count(place)]
            if places or balancer.rng.random() < 0.1:
                yield number, f"How many {CATEGORIES[category].plural} are {place}?", number


def _how_turn(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    turns = {"on my left": "left", "on my right": "right", "behind me": "around"}
    for _, place, name in _single(around):
        if place in turns:
            yield turns[place], f"How should I turn to face {name}?", turns[place]


def _can_see(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for _, place, name in _single(around):
        answer = "yes" if place == "in front of me" else "no"
        yield answer, f"Can I see {name} without turning?", answer


def _can_tell(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for thing, place in around.things():
        same = [p for t, p in around.things() if t.category == thing.category]
        if place and around.clear(thing.category) and same.count(place) == 1 and thing.category != "plant":
            yield thing.colour, f"Can you tell me the color of the {thing.category} {place}?", thing.colour


def _which_closer(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    single = [(t, name) for t, _, name in _single(around)]
    for (a, first), (b, second) in combinations(single, 2):
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


def _are_there(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    for category in sorted(around.view.room.counts):
        if around.clear(category):
            places = [p for t, p in around.things() if t.category == category]
            for place in SECTORS:
                answer = "yes" if place in places else "no"
                yield answer, f"Are there any {CATEGORIES[category].plural} {place}?", answer


def _turned(around: Surroundings, balancer: Balancer) -> Iterator[Asked]:
    """What is nearest ahead after a turn: the question needs the heading twice."""
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
    chosen = [stands[int(i)] for i in balancer.rng.permutation(len(stands))[: 2 * count]]
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


def question_type(text: str) -> str:
    """SQA3D's type of a question: its first word, or ``others``."""
    word = re.split(r"\W", text.lower(), maxsplit=1)[0]
    return word if word in ("what", "is", "how", "can", "which") else "others"
