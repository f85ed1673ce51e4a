"""Descriptions of objects: ScanRefer (one object; they are the captions of Scan2Cap too) and Multi3DRefer (any number)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.datasets._film.catalog import CATEGORIES, article, coloured, coloured_plural, with_article
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets._language.relations import Ids, Relation, relations

SCANREFER_SHARES = {"multiple": 0.6, "unique": 0.4}
MULTI_SHARES = {"zt_w_d": 0.15, "zt_wo_d": 0.10, "st_w_d": 0.30, "st_wo_d": 0.20, "mt": 0.25}


@dataclass(frozen=True, slots=True)
class Query:
    """Category with optional colour and relation; ``ids`` the objects it clearly means."""

    category: str
    colour: str | None
    relation: Relation | None
    ids: Ids

    @property
    def form(self) -> tuple[bool, bool]:
        """Return which parts it has, so that no eval type is known by its form."""
        return self.colour is not None, self.relation is not None

    def noun(self, *, plural: bool = False) -> str:
        """``red chair`` / ``red chairs``."""
        if self.colour is None:
            return CATEGORIES[self.category].plural if plural else self.category
        return coloured_plural(self.colour, self.category) if plural else coloured(self.colour, self.category)


def meant(room: RoomFacts, category: str, colour: str | None, relation: Relation | None) -> tuple[Ids, Ids]:
    """Ids that a query clearly means, and those plus borderline ones."""
    base = room.ids.get((category, colour), frozenset())
    if relation is None:
        return base, base
    if relation.category not in (None, category):
        return frozenset(), frozenset()
    return base & relation.holds, base & relation.maybe


def tokens(text: str) -> list[str]:
    """Words and marks of a lower-case description, as ScanRefer's ``token``."""
    return re.findall(r"[a-z0-9]+|[.,?]", text.lower())


# ------------------------------------------------------------------ ScanRefer


def scanrefer(room: RoomFacts, balancer: Balancer, objects: int, each: int) -> list[dict[str, Any]]:
    """``each`` descriptions of up to ``objects`` objects, every one true of its object alone."""
    found = relations(room)
    open_targets: dict[str, list[tuple[Thing, list[Relation]]]] = {"unique": [], "multiple": []}
    for thing in room.things:
        telling = [r for r in found if _tells(room, thing, r)]
        alone = room.named_counts[thing.category, thing.colour] == 1
        if thing.object_id in room.seen and (telling or alone):
            open_targets["unique" if room.counts[thing.category] == 1 else "multiple"].append((thing, telling))
    entries: list[dict[str, Any]] = []
    for _ in range(min(objects, sum(map(len, open_targets.values())))):
        kind = next(k for k in balancer.most_wanted(SCANREFER_SHARES) if open_targets[k])
        target = balancer.pick(kind, [(t.category, (t, r)) for t, r in open_targets[kind]])
        open_targets[kind].remove(target)
        entries += _descriptions(room, balancer, *target, each)
    return entries


def _tells(room: RoomFacts, thing: Thing, relation: Relation) -> bool:
    """Return whether colour, category and relation together mean this object and no other."""
    holds, maybe = meant(room, thing.category, thing.colour, relation)
    return holds == maybe == frozenset([thing.object_id])


def _descriptions(
    room: RoomFacts, balancer: Balancer, thing: Thing, telling: list[Relation], each: int
) -> Iterator[dict[str, Any]]:
    """Wordings around one main relation (the best to tell the object by), sometimes with a second one."""
    kinds = sorted({r.kind for r in telling})
    main = balancer.pick("relation", [(k, k) for k in kinds]) if kinds else ""
    mains = [r for r in telling if r.kind == main]
    anchor = balancer.one(mains).anchor if mains else None
    mains = [r for r in mains if r.anchor == anchor]
    marks = {r.place for r in mains}
    others = [r for r in telling if r.kind != main and r.place not in marks]
    wordings = balancer.rng.permutation(WORDINGS)
    for number in range(each):
        second = balancer.one(others) if others and number % 3 == 2 else None
        first = balancer.one(mains) if mains else None
        text = _worded(int(wordings[number % WORDINGS]), thing, first, second)
        yield {
            "scene_id": room.scene_id,
            "object_id": str(thing.object_id),
            "object_name": thing.category,
            "ann_id": str(number),
            "description": text,
            "token": tokens(text),
        }


WORDINGS = 8
"""Number of ways to word a description; see ``_worded``."""


def _worded(wording: int, thing: Thing, relation: Relation | None, second: Relation | None) -> str:
    """One description; ``relation`` None gives a plain one."""
    named, category = thing.named, thing.category
    one = with_article(named)
    if relation is None:
        plain = (
            f"the {named} in the room.",
            f"this is {one}.",
            f"you can see {one}.",
            f"{one}.",
            f"it is {one}.",
            f"there is {one} in the room.",
            f"this is the {named} in the room.",
            f"look for {one}.",
        )
        return plain[wording]
    last = f"its pot is {thing.colour}." if category == "plant" else f"it is {thing.colour}."
    after, says = relation.phrase, relation.sentence()
    it = "the" if relation.superlative else article(named)
    texts = (
        f"the {named} {after}.",
        f"this is {one}. {says}.",
        f"you can see {it} {named} {after}.",
        f"{one}. {relation.sentence(f'the {category}')}.",
        f"it is {it} {named} {after}.",
        f"the {category} {after}. {last}",
        f"this is {it} {named} {after}.",
        f"look for {it} {named}. {says}.",
    )
    return texts[wording] if second is None else f"{texts[wording]} {second.sentence()}."


# --------------------------------------------------------------- Multi3DRefer


def multi3drefer(room: RoomFacts, balancer: Balancer, count: int) -> list[dict[str, Any]]:
    """``count`` descriptions of none, one or several objects, no sentence twice."""
    pools = _pools(room, balancer)
    entries: list[dict[str, Any]] = []
    said: set[str] = set()
    for _ in range(4 * count):
        if len(entries) == count:
            break
        kind = next((k for k in balancer.most_wanted(MULTI_SHARES) if pools[k]), None)
        if kind is None:
            break
        query = balancer.pick(kind, [(q.form, q) for q in pools[kind]])
        pools[kind].remove(query)
        text = _query_text(query, kind, balancer)
        if text in said:
            continue
        said.add(text)
        entries.append(
            {
                "scene_id": room.scene_id,
                "object_ids": sorted(query.ids),
                "object_name": query.category,
                "ann_id": len(entries),
                "eval_type": kind,
                "description": text,
            }
        )
    return entries


def _pools(room: RoomFacts, balancer: Balancer) -> dict[str, list[Query]]:
    """Queries about the room that nobody would dispute, by eval type: all that mean something, some that mean nothing."""
    pools: dict[str, list[Query]] = {kind: [] for kind in MULTI_SHARES}
    found = relations(room)
    absent = [c for c in room.words.categories if not room.counts[c]]
    categories = [*sorted(room.counts), *(absent[int(i)] for i in balancer.rng.permutation(len(absent))[:4])]
    for category in categories:
        present = {t.colour for t in room.of(category)}
        missing = [c for c in room.words.colours if c not in present]
        colours = (None, *sorted(present), balancer.one(missing))
        usable = [r for r in found if r.category in (None, category)]
        if not present:
            usable = [balancer.one(usable) for _ in range(3 if usable else 0)]
        for colour in colours:
            for relation in (None, *usable):
                holds, maybe = meant(room, category, colour, relation)
                kind = _eval_type(room, room.counts[category], holds, maybe)
                if kind and not (relation is not None and _anchored_on_itself(room, category, colour, relation)):
                    pools[kind].append(Query(category, colour, relation, holds))
    return pools


def _anchored_on_itself(room: RoomFacts, category: str, colour: str | None, relation: Relation) -> bool:
    """``the desk next to the desk``."""
    if relation.anchor is None:
        return False
    anchor = room.things[relation.anchor]
    return anchor.category == category and colour in (None, anchor.colour)


def _eval_type(room: RoomFacts, present: int, holds: Ids, maybe: Ids) -> str | None:
    if holds != maybe or not all(i in room.seen for i in holds):
        return None
    if not holds:
        return "zt_w_d" if present else "zt_wo_d"
    if len(holds) > 1:
        return "mt"
    return "st_w_d" if present > 1 else "st_wo_d"


def _query_text(query: Query, kind: str, balancer: Balancer) -> str:
    """Plural for several targets, either for one or none, so that the number of a noun alone gives nothing away."""
    relation = query.relation
    after = f" {relation.phrase}" if relation else ""
    if kind == "mt":
        return f"{balancer.one(['the', 'all', 'any', 'find the', 'find all'])} {query.noun(plural=True)}{after}."
    noun = query.noun()
    if relation is not None and relation.superlative:
        the = [f"the {noun}{after}.", f"find the {noun}{after}.", f"this is the {noun}{after}."]
        return balancer.one([*the, f"{with_article(noun)}. {relation.sentence()}."])
    if balancer.rng.random() < (0.45 if kind.startswith("zt") else 0.2):
        return f"{balancer.one(['the', 'any', 'find the', 'find all'])} {query.noun(plural=True)}{after}."
    one = with_article(noun)
    if relation and balancer.rng.random() < 0.4:
        return f"this is {one}. {relation.sentence()}."
    return balancer.one([f"the {noun}{after}.", f"{one}{after}.", f"there is {one}{after}.", f"find the {noun}{after}."])
