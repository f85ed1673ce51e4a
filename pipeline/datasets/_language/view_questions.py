"""Questions about ONE view, for the 2D pretraining of backbones: colour, category, presence, number, caption. No 3D facts.

Official format there is none; an entry is {scene_id, frame_id, question, answers, kind}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pipeline.datasets._film.catalog import CATEGORIES, number_word, with_article
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets._language.questions import color_question

CLEAR_SHARE = 0.010
"""Share of the picture from which an object is clearly visible."""
HINT_SHARE = 0.0008
"""Share of the picture below which an object does not count as visible at all."""
SHARES = {"color": 0.26, "category": 0.24, "exists": 0.16, "count": 0.12, "caption": 0.22}

Candidates = list[tuple[str, tuple[str, tuple[str, ...]]]]


def view_questions(room: RoomFacts, balancer: Balancer, per_view: int) -> list[dict[str, Any]]:
    """Up to ``per_view`` questions about each view, no question twice about one view."""
    entries: list[dict[str, Any]] = []
    for frame, shares in zip(room.frame_ids, room.visible, strict=True):
        pools = {kind: maker(room, shares, balancer) for kind, maker in FAMILIES.items()}
        asked = 0
        while asked < per_view and any(pools.values()):
            kind = next(k for k in balancer.most_wanted(SHARES) if pools[k])
            text, answers = balancer.pick(kind, pools[kind])
            pools[kind] = [] if kind == "caption" else [c for c in pools[kind] if c[1][0] != text]
            asked += 1
            entries.append(
                {"scene_id": room.scene_id, "frame_id": frame, "question": text, "answers": list(answers), "kind": kind}
            )
    return entries


def _clear(room: RoomFacts, shares: dict[int, float]) -> list[Thing]:
    return [t for t in room.things if shares.get(t.object_id, 0.0) >= CLEAR_SHARE]


def _hinted(room: RoomFacts, shares: dict[int, float]) -> list[Thing]:
    return [t for t in room.things if shares.get(t.object_id, 0.0) >= HINT_SHARE]


def _color(room: RoomFacts, shares: dict[int, float], balancer: Balancer) -> Candidates:
    visible = Counter(t.category for t in _hinted(room, shares))
    return [
        (t.colour, (color_question(f"the {t.category}", t, balancer), (t.colour,)))
        for t in _clear(room, shares)
        if visible[t.category] == 1
    ]


def _category(room: RoomFacts, shares: dict[int, float], balancer: Balancer) -> Candidates:
    visible = Counter(t.colour for t in _hinted(room, shares))
    if room.unnamed:
        return []
    return [
        (t.category, (balancer.one([f"What is the {t.colour} object?", f"Which object is {t.colour}?"]), (t.category,)))
        for t in _clear(room, shares)
        if visible[t.colour] == 1 and t.category != "plant"
    ]


def _exists(room: RoomFacts, shares: dict[int, float], balancer: Balancer) -> Candidates:
    candidates: Candidates = []
    hinted = {t.category for t in _hinted(room, shares)}
    for category in sorted({t.category for t in _clear(room, shares)}):
        candidates.append(("yes", (_present(category, balancer), ("yes",))))
    absent = [c for c in room.words.categories if c not in hinted]
    for _ in range(min(3, len(absent))):
        candidates.append(("no", (_present(balancer.one(absent), balancer), ("no",))))
    return candidates


def _present(category: str, balancer: Balancer) -> str:
    one = with_article(category)
    return balancer.one([f"Is there {one} in the picture?", f"Can you see {one} in the picture?"])


def _count(room: RoomFacts, shares: dict[int, float], balancer: Balancer) -> Candidates:
    hinted = Counter(t.category for t in _hinted(room, shares))
    clear = Counter(t.category for t in _clear(room, shares))
    candidates: Candidates = []
    for category in room.words.categories:
        number = number_word(clear[category])
        if clear[category] == hinted[category] and (clear[category] or balancer.rng.random() < 0.15):
            candidates.append((number, (f"How many {CATEGORIES[category].plural} are in the picture?", (number,))))
    return candidates


def _caption(room: RoomFacts, shares: dict[int, float], balancer: Balancer) -> Candidates:
    """The two or three largest objects of the view, largest first."""
    largest = sorted(_clear(room, shares), key=lambda t: -shares[t.object_id])[:3]
    if not largest:
        return []
    nouns = [with_article(t.named) for t in largest]
    listed = nouns[0] if len(nouns) == 1 else f"{', '.join(nouns[:-1])} and {nouns[-1]}"
    question = balancer.one(["Describe the picture.", "What does the picture show?"])
    return [(largest[0].category, (question, (listed,)))]


FAMILIES: dict[str, Callable[[RoomFacts, dict[int, float], Balancer], Candidates]] = {
    "color": _color,
    "category": _category,
    "exists": _exists,
    "count": _count,
    "caption": _caption,
}
"""Kinds of questions: each gives (answer key, (question, answers))."""
