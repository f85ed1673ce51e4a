"""VSI-Bench questions of rooms: true of the boxes and views alone, balanced, in the official form; nothing else changes."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pipeline.datasets._film.film import SEEN_SHARE
from pipeline.datasets._language.annotate import annotate
from pipeline.datasets._language.facts import RoomFacts, Thing
from pipeline.datasets.base import contents
from pipeline.datasets.rooms import RoomsOptions
from pipeline.metrics.spatial import CHOICE_TYPES, NUMERIC_TYPES, QUESTION_TYPES

Rooms = dict[str, RoomFacts]
FIELDS = {"id", "dataset", "scene_name", "question_type", "question", "ground_truth", "options"}


@pytest.fixture(scope="module")
def asked(many_rooms: Rooms) -> list[dict[str, Any]]:
    options = RoomsOptions(vsibench_per_room=12)
    return annotate([("train", room) for room in many_rooms.values()], options)["vsibench"]["train"]["vsibench_train.json"]


def of(asked: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [e for e in asked if e["question_type"] == kind]


def only(room: RoomFacts, category: str) -> Thing:
    (thing,) = room.of(category)
    assert thing.object_id in room.seen
    return thing


def right(entry: dict[str, Any]) -> str:
    """The text of the right option."""
    (text,) = [o[3:] for o in entry["options"] if o.startswith(f"{entry['ground_truth']}. ")]
    return text


def angle(at: Thing, facing: Thing, point: Thing) -> float:
    """Degrees from one direction to the other by complex numbers, left positive."""
    origin, ahead, there = (complex(*t.centre[:2]) for t in (at, facing, point))
    return math.degrees(np.angle((there - origin) / (ahead - origin)))


def test_form(asked: list[dict[str, Any]], many_rooms: Rooms) -> None:
    assert len(asked) > 60 * 11
    assert len({e["id"] for e in asked}) == len(asked)
    assert len({(e["scene_name"], e["question"]) for e in asked}) == len(asked)
    for entry in asked:
        assert set(entry) == FIELDS
        assert entry["scene_name"] in many_rooms
        if entry["question_type"] in NUMERIC_TYPES:
            assert entry["options"] is None
            assert float(entry["ground_truth"]) > 0
        else:
            assert [o[:3] for o in entry["options"]] == [f"{letter}. " for letter in "ABCD"[: len(entry["options"])]]
            assert len(set(entry["options"])) == len(entry["options"])
            right(entry)


def test_all_types_are_asked_and_no_letter_is_frequent(asked: list[dict[str, Any]]) -> None:
    kinds = Counter(e["question_type"] for e in asked)
    assert set(kinds) == set(QUESTION_TYPES)
    assert min(kinds.values()) > 15
    for kind in CHOICE_TYPES:
        letters = Counter(e["ground_truth"] for e in of(asked, kind))
        assert max(letters.values()) < 0.62 * kinds[kind], kind


def test_counts_and_sizes(asked: list[dict[str, Any]], many_rooms: Rooms) -> None:
    for e in of(asked, "object_counting"):
        category = re.fullmatch(r"How many (.+)\(s\) are in this room\?", e["question"])
        assert category is not None
        things = many_rooms[e["scene_name"]].of(category[1])
        assert int(e["ground_truth"]) == len(things) > 1
    for e in of(asked, "object_size_estimation"):
        name = re.search(r"of the (\w+), measured in centimeters", e["question"])
        assert name is not None
        thing = only(many_rooms[e["scene_name"]], name[1])
        assert float(e["ground_truth"]) == pytest.approx(100 * max(np.array(thing.high) - np.array(thing.low)), abs=0.6)
    for e in of(asked, "room_size_estimation"):
        room = many_rooms[e["scene_name"]]
        x0, y0, x1, y1 = room.bounds
        # A grid of points every centimetre or so, without the cut-off corner.
        x, y = np.meshgrid(np.linspace(x0, x1, 400), np.linspace(y0, y1, 400))
        inside = np.ones(x.shape, dtype=bool)
        if room.pillar:
            a, b, c, d = room.pillar
            inside = ~((x > a) & (x < c) & (y > b) & (y < d))
        assert float(e["ground_truth"]) == pytest.approx((x1 - x0) * (y1 - y0) * inside.mean(), abs=0.25)


def nearest_points(a: Thing, b: Thing) -> float:
    """Distance of two boxes by bringing a point of one to the other and back until it stays."""
    point = a.centre
    for _ in range(50):
        other = np.clip(point, b.low, b.high)
        point = np.clip(other, a.low, a.high)
    return float(np.linalg.norm(point - other))


def test_distances(asked: list[dict[str, Any]], many_rooms: Rooms) -> None:
    for e in of(asked, "object_abs_distance"):
        names = re.search(r"distance between the (\w+) and the (\w+) \(in meters\)", e["question"])
        assert names is not None
        room = many_rooms[e["scene_name"]]
        gap = nearest_points(only(room, names[1]), only(room, names[2]))
        assert float(e["ground_truth"]) == pytest.approx(gap, abs=0.051)
    for e in of(asked, "object_rel_distance"):
        listed = re.search(r"objects \((.+)\) is the closest to the (\w+)\?", e["question"])
        assert listed is not None
        room = many_rooms[e["scene_name"]]
        target, names = only(room, listed[2]), listed[1].split(", ")
        assert sorted(names) == sorted(o[3:] for o in e["options"])
        gaps = {n: min(nearest_points(t, target) for t in room.of(n)) for n in names}
        best, second = sorted(gaps.values())[:2]
        assert gaps[right(e)] == best < second - 0.29


def test_directions(asked: list[dict[str, Any]], many_rooms: Rooms) -> None:
    for kind in ("easy", "medium", "hard"):
        for e in of(asked, f"object_rel_direction_{kind}"):
            names = re.match(r"If I am standing by the (\w+) and facing the (\w+), is the (\w+) to", e["question"])
            assert names is not None
            room = many_rooms[e["scene_name"]]
            turn = angle(*(only(room, n) for n in names.groups()))
            side = "left" if turn > 0 else "right"
            if kind == "easy":
                expected = side
            elif kind == "medium":
                expected = "back" if abs(turn) >= 135 else side
                assert abs(turn) >= 45
            else:
                expected = f"{'front' if abs(turn) < 90 else 'back'}-{side}"
            assert right(e) == expected


def test_routes(asked: list[dict[str, Any]], many_rooms: Rooms) -> None:
    for e in of(asked, "route_planning"):
        room = many_rooms[e["scene_name"]]
        start = re.match(r"You are a robot beginning at the (\w+) facing the (\w+)\.", e["question"])
        walk = re.findall(r"Go forward until the (\w+)\.", e["question"])
        assert start is not None
        assert len(walk) == 2
        a, facing, middle, end = (only(room, n) for n in (*start.groups(), *walk))
        back = (angle(middle, a, end) + 360) % 360 - 180  # facing away from where it came
        said = []
        for turn in (angle(a, facing, middle), back):
            said.append("Turn Back" if abs(turn) > 150 else ("Turn Left" if turn > 0 else "Turn Right"))
        assert right(e) == ", ".join(said)


def test_order_of_appearance(asked: list[dict[str, Any]], many_rooms: Rooms) -> None:
    for e in of(asked, "obj_appearance_order"):
        room = many_rooms[e["scene_name"]]
        views = []
        for name in right(e).split(", "):
            ids = {t.object_id for t in room.of(name)}
            views.append(next(v for v, s in enumerate(room.visible) if any(s.get(i, 0) >= SEEN_SHARE for i in ids)))
        assert views == sorted(set(views))
        assert len(views) >= 3


def test_only_on_request_and_without_touching_other_files(many_rooms: Rooms, files: dict[str, Any]) -> None:
    assert not [name for name in files if "vsi" in name]
    more = annotate([("train", room) for room in many_rooms.values()], RoomsOptions(vsibench_per_room=3))
    assert list(more.pop("vsibench")["train"]) == ["vsibench_train.json"]
    assert contents(more) == files
