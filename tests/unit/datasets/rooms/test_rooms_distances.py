"""Distances and sizes by surfaces: of cubes whose answers are known, and of furniture that stands askew in built-in rooms."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from pipeline.datasets._film.distances import gaps_between, longest_edge, surface_points
from pipeline.datasets._film.film import BuiltRoom
from pipeline.datasets._film.mesh import Mesh, block
from pipeline.datasets._film.room import Item
from pipeline.datasets._language.balance import Balancer
from pipeline.datasets._language.facts import facts_from_json, facts_of
from pipeline.datasets._language.vsi import vsibench
from pipeline.datasets.rooms.scene import build_room


def cuboid(low: tuple[float, float, float], size: tuple[float, float, float], yaw: float = 0.0) -> Mesh:
    sides = [(0.0, s) for s in size]
    return block(*sides, (0.5, 0.5, 0.5)).moved(yaw, low)


def test_gaps_of_cubes() -> None:
    one = (1.0, 1.0, 1.0)
    meshes = [cuboid((0, 0, 0), one), cuboid((1.5, 0, 0), one), cuboid((2.0, 2.0, 0.0), (0.5, 0.5, 0.5))]
    found = {(a, b): gap for a, b, gap in gaps_between(meshes)}
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    np.testing.assert_allclose([found[0, 1], found[0, 2], found[1, 2]], [0.5, math.sqrt(2), 1.0], atol=0.01)


def test_a_gap_is_measured_to_the_surface_not_to_the_box() -> None:
    """A pane turned by 45 degrees fills its box along a diagonal only: a cube in the box's free corner is not touching it."""
    pane, cube = cuboid((0, 0, 0), (3.0, 0.02, 1.0), math.pi / 4), cuboid((1.6, 0.0, 0.0), (0.5, 0.5, 0.5))
    boxes = [mesh.bounds() for mesh in (pane, cube)]
    assert (boxes[0][1] > boxes[1][0]).all(), "the boxes overlap"
    ((_, _, gap),) = gaps_between([pane, cube])
    assert gap == pytest.approx((1.6 - 0.5) / math.sqrt(2), abs=0.01)


def test_surface_points_cover_a_surface_evenly() -> None:
    points = surface_points(cuboid((0, 0, 0), (1.0, 1.0, 1.0)))
    assert ((points > -1e-9) & (points < 1 + 1e-9)).all()
    shares = [(points[:, k] < 1e-9).mean() + (points[:, k] > 1 - 1e-9).mean() for k in range(3)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)


@pytest.mark.parametrize("yaw", [0.0, 0.3, math.pi / 4, 2.0])
def test_the_longest_edge_does_not_depend_on_how_a_thing_is_turned(yaw: float) -> None:
    assert longest_edge(cuboid((1, 2, 0), (1.4, 0.8, 0.7), yaw)) == pytest.approx(1.4)
    assert longest_edge(cuboid((1, 2, 0), (0.4, 0.8, 2.1), yaw)) == pytest.approx(2.1)
    pane = cuboid((0, 0, 0), (1.4, 0.0, 0.7), yaw)
    assert longest_edge(pane) == pytest.approx(1.4), "without any thickness"


@pytest.fixture(scope="module")
def rooms() -> list[BuiltRoom]:
    return [build_room((5, "train", number), views=5, size=(48, 64), objects=(7, 12)) for number in range(12)]


def test_rooms_are_asked_for_what_their_surfaces_say(rooms: list[BuiltRoom]) -> None:
    """Against points spread over the triangles at random; between boxes, some answers would be 0.2 m off and more."""
    rng, checked, off = np.random.default_rng(1), 0, 0.0
    for number, built in enumerate(rooms):
        room = facts_from_json(facts_of(f"room{number}", built, spatial=True))
        items = {i.category: i for i in built.room.items}
        boxed = facts_from_json(facts_of(f"room{number}", built))
        for entry in vsibench(room, Balancer(np.random.default_rng(number)), 40, 0):
            if entry["question_type"] == "object_abs_distance":
                a, b = (items[n] for n in re.findall(r"the (\w+) and the (\w+) \(in meters", entry["question"])[0])
                points = [spread(i, rng) for i in (a, b)]
                said = float(entry["ground_truth"])
                assert said == pytest.approx(nearest(*points), abs=0.08)
                off = max(off, said - boxed.gap_m(boxed.things[a.object_id], boxed.things[b.object_id]))
                checked += 1
            if entry["question_type"] == "object_size_estimation":
                (noun,) = re.findall(r"of the (\w+), measured", entry["question"])
                assert float(entry["ground_truth"]) <= 100 * float((items[noun].high - items[noun].low).max()) + 0.5
    assert checked > 30
    assert off > 0.2


def spread(item: Item, rng: np.random.Generator) -> np.ndarray:
    a, b, c = (item.mesh.vertices[item.mesh.triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    at = rng.choice(len(area), 1500, p=area / area.sum())
    u, v = np.sort(rng.random((2, 1500, 1)), axis=0)
    return np.concatenate([u * a[at] + (v - u) * b[at] + (1 - v) * c[at], item.mesh.vertices])


def nearest(a: np.ndarray, b: np.ndarray) -> float:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return math.sqrt(max(float(squares.min()), 0.0))
