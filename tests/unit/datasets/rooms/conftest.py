"""Facts of many small rooms, and their annotations as one split."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.datasets._language.annotate import annotate
from pipeline.datasets._language.facts import RoomFacts, facts_from_json, facts_of
from pipeline.datasets.base import contents
from pipeline.datasets.rooms import RoomsOptions
from pipeline.datasets.rooms.scene import build_room


@pytest.fixture(scope="session")
def many_rooms() -> dict[str, RoomFacts]:
    """Scene id -> facts of 60 rooms (images of 48 x 64: only visibility matters here)."""
    rooms = {}
    for number in range(60):
        built = build_room((11, "train", number), views=5, size=(48, 64), objects=(5, 12))
        scene_id = f"room_train_{number:05d}"
        rooms[scene_id] = facts_from_json(facts_of(scene_id, built))
    return rooms


@pytest.fixture(scope="session")
def files(many_rooms: dict[str, RoomFacts]) -> dict[str, Any]:
    """File name -> content of the annotations of these rooms."""
    return contents(annotate([("train", room) for room in many_rooms.values()], RoomsOptions()))
