"""ScanQA: questions about a whole room, in families with aimed shares, answers balanced within each family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.datasets._film.catalog import CATEGORIES, coloured, coloured_plural, number_word, with_article
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.describe import meant
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets._language.relations import Relation, floor_distance, footprint_gap, relations

SHARES = {"color": 0.20, "count": 0.16, "near": 0.17, "exists": 0.13, "where": 0.12, "on": 0.08, "choice": 0.14}


@dataclass(frozen=True, slots=True)
class Question:
    """A question with all its right answers and the objects it is about."""

    text: str
    answers: tuple[str, ...]
    things: tuple[Thing, ...] = ()


Candidates = list[tuple[str, Question]]


@dataclass(frozen=True)
class View:
    """A room with its relations and the phrases that mean one object each; ``plain`` ones name no colour of it."""

    room: RoomFacts
    found: list[Relation]
    plain: dict[int, list[str]]
    named: dict[int, list[str]]


def view_of(room: RoomFacts) -> View:
    """Relations and referring phrases of the objects that some view shows."""
    found = relations(room)
    plain: dict[int, list[str]] = {}
    named: dict[int, list[str]] = {}
    for thing in room.things:
        if thing.object_id not in room.seen:
            continue
        alone = frozenset([thing.object_id])
        if room.counts[thing.category] == 1:
            plain[thing.object_id] = [f"the {thing.category}"]
        else:
            telling = [r for r in found if meant(room, thing.category, None, r) == (alone, alone)]
            plain[thing.object_id] = [f"the {thing.category} {r.phrase}" for r in telling if r.anchor != thing.object_id]
        reference = room.reference(thing)
        named[thing.object_id] = [reference] if reference else plain[thing.object_id]
    return View(room, found, {i: p for i, p in plain.items() if p}, {i: p for i, p in named.items() if p})


def scanqa(room: RoomFacts, balancer: Balancer, count: int, split: str) -> list[dict[str, Any]]:
    """``count`` questions in the official format, no question twice."""
    view = view_of(room)
    pools = {name: maker(view, balancer) for name, maker in FAMILIES.items()}
    entries: list[dict[str, Any]] = []
    asked: set[str] = set()
    while len(entries) < count and any(pools.values()):
        family = next(name for name in balancer.most_wanted(SHARES) if pools[name])
        question = balancer.pick(family, [(key, q) for key, q in pools[family]])
        pools[family] = [(k, q) for k, q in pools[family] if q.text != question.text and q.things != question.things]
        if question.text in asked:
            continue
        asked.add(question.text)
        entries.append(
            {
                "question_id": f"{split}-{room.scene_id}-{len(entries)}",
                "scene_id": room.scene_id,
                "question": question.text,
                "answers": list(question.answers),
                "object_ids": [t.object_id for t in question.things],
                "object_names": [t.category for t in question.things],
            }
        )
    return entries


def color_question(phrase: str, thing: Thing, balancer: Balancer) -> str:
    """A question for an object's colour; a plant's colour is its pot's."""
    if thing.category == "plant":
        return f"What color is the pot of {phrase}?"
    return balancer.one([f"What color is {phrase}?", f"What is the color of {phrase}?"])


def _color(view: View, balancer: Balancer) -> Candidates:
    return [
        (t.colour, Question(color_question(balancer.one(view.plain[t.object_id]), t, balancer), (t.colour,), (t,)))
        for t in view.room.things
        if t.object_id in view.plain
    ]


def _what(view: View, balancer: Balancer, kinds: Iterable[str], verbs: tuple[str, ...]) -> Candidates:
    """``What is <relation>?`` where exactly one object, clearly, is the answer."""
    candidates: Candidates = []
    for relation in view.found:
        if relation.kind in kinds and relation.category is None and len(relation.holds) == 1:
            (answer,) = relation.holds
            thing = view.room.things[answer]
            if relation.holds == relation.maybe and answer in view.room.seen and not _disputed(view.room, relation):
                text = f"What {balancer.one(verbs)} {relation.phrase}?"
                candidates.append((thing.category, Question(text, (thing.category, thing.named), (thing,))))
    return candidates


def _disputed(room: RoomFacts, relation: Relation) -> bool:
    """Return whether a thing without a noun could be the answer: one is close to what the relation refers to."""
    if relation.anchor is None:
        return bool(room.unnamed)
    anchor = room.things[relation.anchor]
    return any(footprint_gap(rect, anchor) < 1.0 for rect in room.unnamed)


def _on(view: View, balancer: Balancer) -> Candidates:
    return _what(view, balancer, ("on",), ("is", "is standing"))


def _near(view: View, balancer: Balancer) -> Candidates:
    return _what(view, balancer, ("near", "front", "above", "mark", "middle"), ("is", "object is"))


def _count(view: View, balancer: Balancer) -> Candidates:
    room, candidates = view.room, []
    for category in room.words.categories:
        if room.all_seen(room.of(category)):
            plural = CATEGORIES[category].plural
            text = balancer.one([f"How many {plural} are in the room?", f"How many {plural} are there?"])
            candidates.append(_counted(text, room.of(category)))
            colour = balancer.one(room.words.colours)
            if room.counts[category] > 1:
                colour = balancer.one(room.of(category)).colour
            text = f"How many {coloured_plural(colour, category)} are there?"
            candidates.append(_counted(text, room.of(category, colour)))
    for colour in room.words.colours if room.all_seen(room.things) and not room.unnamed else ():
        things = [t for t in room.things if t.colour == colour and t.category != "plant"]
        if not any(t.colour == colour and t.category == "plant" for t in room.things):
            candidates.append(_counted(f"How many {colour} objects are in the room?", things))
    return candidates


def _counted(text: str, things: list[Thing]) -> tuple[str, Question]:
    answer = number_word(len(things))
    return answer, Question(text, (answer,), tuple(things))


def _exists(view: View, balancer: Balancer) -> Candidates:
    """Yes and no, each with and without a colour, so that neither the form nor the category gives the answer away."""
    room, candidates = view.room, []
    for category in room.words.categories:
        present = room.of(category)
        if not present or room.all_seen(present):
            text = f"Is there {with_article(category)} in the room?"
            answer = "yes" if present else "no"
            candidates.append((f"{answer} plain", Question(text, (answer,), tuple(present))))
        for thing in present:
            if thing.object_id in room.seen:
                text = f"Is there {with_article(thing.named)} in the room?"
                candidates.append(("yes colour", Question(text, ("yes",), (thing,))))
        missing = [c for c in room.words.colours if not room.named_counts[category, c]]
        if present:
            text = f"Is there {with_article(coloured(balancer.one(missing), category))} in the room?"
            candidates.append(("no colour", Question(text, ("no",))))
    return candidates


def _where(view: View, balancer: Balancer) -> Candidates:
    candidates = []
    for thing in view.room.things:
        if thing.object_id not in view.named:
            continue
        phrase = balancer.one(view.named[thing.object_id])
        places = [
            r for r in view.found
            if thing.object_id in r.holds and r.category is None and not r.has and r.phrase not in phrase
        ]  # fmt: skip
        if thing.on is not None:
            places = [r for r in places if r.kind == "on"]
        answers = tuple(dict.fromkeys(r.phrase for r in places))[:6]
        for relation in places:
            ordered = (relation.phrase, *(a for a in answers if a != relation.phrase))
            candidates.append((relation.kind, Question(f"Where is {phrase}?", ordered, (thing,))))
    return candidates


def _choice(view: View, balancer: Balancer) -> Candidates:
    """Two objects to choose from: which is closer to a landmark, which is larger; two colours to choose from."""
    room, candidates = view.room, []
    things = [t for t in room.things if t.object_id in view.named and room.reference(t)]
    for a, b in combinations(things, 2):
        if a.category == b.category:
            continue
        pair = (a, b) if balancer.rng.random() < 0.5 else (b, a)
        either = f"{room.reference(pair[0])} or {room.reference(pair[1])}"
        for kind in ("door", "window"):
            mark = room.single(kind)
            if mark is None or "ceiling" in (a.hangs, b.hangs):
                continue
            first, second = (floor_distance(t, _point(mark.centre)) for t in pair)
            if abs(first - second) > 0.6:
                closer = pair[0] if first < second else pair[1]
                candidates.append(_chosen(f"Which is closer to the {kind}, {either}?", closer, pair))
        tall = [t.size[2] for t in pair]
        if max(tall) > 1.3 * min(tall) and not any(t.hung for t in pair):
            candidates.append(_chosen(f"Which is taller, {either}?", pair[int(tall[1] > tall[0])], pair))
    for thing in things:
        if room.counts[thing.category] == 1 and thing.category != "plant":
            other = balancer.one([c for c in room.words.colours if c != thing.colour])
            two = (thing.colour, other) if balancer.rng.random() < 0.5 else (other, thing.colour)
            text = f"Is the {thing.category} {two[0]} or {two[1]}?"
            candidates.append((thing.colour, Question(text, (thing.colour,), (thing,))))
    return candidates


def _chosen(text: str, answer: Thing, pair: tuple[Thing, Thing]) -> tuple[str, Question]:
    return answer.category, Question(text, (answer.category, answer.named), pair)


def _point(values: tuple[float, float]) -> Any:
    return np.array(values)


FAMILIES: dict[str, Callable[[View, Balancer], Candidates]] = {
    "color": _color,
    "count": _count,
    "near": _near,
    "exists": _exists,
    "where": _where,
    "on": _on,
    "choice": _choice,
}
"""Families of questions: each gives all its candidates as (answer key, question)."""
