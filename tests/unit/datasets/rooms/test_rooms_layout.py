"""Furniture and layout: sizes, no collisions, supports, variety."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline.datasets._film.catalog import CATEGORIES, COLOURS
from pipeline.datasets._film.room import Room, overlap
from pipeline.datasets.rooms.furniture import BUILDERS, Style
from pipeline.datasets.rooms.layout import GAP_M, make_room


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [make_room(np.random.default_rng(seed), (5, 12)) for seed in range(60)]


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_every_category_is_built_from_parts(category: str) -> None:
    for seed in range(5):
        mesh = BUILDERS[category](Style((0.8, 0.1, 0.1), np.random.default_rng(seed)))
        low, high = mesh.bounds()
        assert len(mesh.triangles) >= 24
        assert np.isfinite(mesh.vertices).all()
        assert mesh.triangles.max() == len(mesh.vertices) - 1
        assert ((high - low) < 2.2).all()
        assert (high - low)[2] > 0.2
        if category != "picture":
            assert low[2] == pytest.approx(0.0, abs=1e-9)
            assert np.abs((low + high)[:2]).max() < 0.15
        area = np.cross(*(mesh.vertices[mesh.triangles[:, k]] - mesh.vertices[mesh.triangles[:, 0]] for k in (1, 2)))
        main = np.all(np.abs(mesh.albedo / mesh.albedo.max(1, keepdims=True) - np.array([1, 0.125, 0.125])) < 0.02, axis=1)
        share = np.linalg.norm(area[main], axis=1).sum() / np.linalg.norm(area, axis=1).sum()
        assert share > 0.1, f"only {share:.2f} of a {category} shows its colour"


def test_small_versions_are_small() -> None:
    for name in (c.name for c in CATEGORIES.values() if c.small_on_top):
        mesh = BUILDERS[name](Style((0.5, 0.5, 0.5), np.random.default_rng(0), small=True))
        low, high = mesh.bounds()
        assert (high - low).max() < 0.55


def test_nothing_collides(rooms: list[Room]) -> None:
    for room in rooms:
        floor = [i for i in room.items if i.on is None and i.category != "picture"]
        for k, item in enumerate(floor):
            assert item.low[2] == pytest.approx(0.0, abs=1e-6)
            assert not any(overlap(item.rect, other.rect, GAP_M - 1e-9) for other in floor[k + 1 :])
            assert room.pillar is None or not overlap(item.rect, room.pillar)


def test_everything_is_inside_the_room(rooms: list[Room]) -> None:
    for room in rooms:
        low, high = np.array([*room.bounds[:2], 0.0]), np.array([*room.bounds[2:], room.height])
        for item in room.items:
            assert (item.low > low - 1e-6).all(), item.category
            assert (item.high < high).all(), item.category


def test_things_stand_on_furniture(rooms: list[Room]) -> None:
    on_top = [(room, item) for room in rooms for item in room.items if item.on is not None]
    assert len(on_top) > 20
    for room, item in on_top:
        host = room.items[item.on]
        assert CATEGORIES[host.category].support
        assert item.low[2] == pytest.approx(host.high[2], abs=0.01)
        assert (item.low[:2] >= host.low[:2]).all()
        assert (item.high[:2] <= host.high[:2]).all()


def test_rooms_are_varied(rooms: list[Room]) -> None:
    numbers = [len(room.items) for room in rooms]
    assert min(numbers) >= 5
    assert max(numbers) <= 12
    assert len(set(numbers)) >= 5
    assert set(Counter(i.category for room in rooms for i in room.items)) == set(CATEGORIES)
    assert set(Counter(i.colour for room in rooms for i in room.items)) == set(COLOURS)
    assert len(CATEGORIES) >= 12
    assert len(COLOURS) == 8
    repeated = sum(max(Counter(i.category for i in room.items).values()) > 1 for room in rooms)
    assert repeated > len(rooms) * 0.6
    assert sum(room.pillar is not None for room in rooms) > 3


def test_rooms_have_doors_and_windows(rooms: list[Room]) -> None:
    for room in rooms:
        kinds = Counter(o.kind for o in room.openings)
        assert kinds["door"] == 1
        assert kinds["window"] <= 2
    assert sum(any(o.kind == "window" for o in room.openings) for room in rooms) > 50


def test_same_seed_same_room(rooms: list[Room]) -> None:
    again = make_room(np.random.default_rng(7), (5, 12))
    assert [(i.category, i.colour, i.rect) for i in again.items] == [(i.category, i.colour, i.rect) for i in rooms[7].items]
