"""Camera path, rendering and sensor of rooms: geometry is exact, the sensor is not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets._film import camera, sensor
from pipeline.datasets._film.film import BuiltRoom, detector_boxes
from pipeline.datasets._film.render import BACKGROUND, Renderer, Rendering
from pipeline.datasets.rooms.layout import make_room
from pipeline.datasets.rooms.scene import build_room
from pipeline.scenes.geometry import unproject

SIZE = (48, 64)


@pytest.fixture(scope="module")
def built() -> list[BuiltRoom]:
    return [build_room((5, "train", i), views=6, size=SIZE, objects=(5, 12)) for i in range(12)]


def test_poses_are_rigid_and_inside_the_room() -> None:
    room = make_room(np.random.default_rng(1), (5, 12))
    poses = camera.path(room, np.random.default_rng(2), 40)
    turn = poses[:, :3, :3]
    np.testing.assert_allclose(turn @ np.swapaxes(turn, 1, 2), np.tile(np.eye(3), (40, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turn), 1.0, atol=1e-6)
    assert (poses[:, 2, 1] < -0.5).all(), "image y must point down"
    eyes = poses[:, :3, 3]
    assert (eyes[:, :2] > room.bounds[:2]).all()
    assert (eyes[:, :2] < room.bounds[2:]).all()
    assert eyes[:, 2].min() >= 1.2
    assert eyes[:, 2].max() <= 1.8
    assert np.ptp(eyes[:, 2]) > 0.1


def test_path_is_no_circle() -> None:
    """The distance to the middle of the path varies, and so does the height."""
    spread = []
    for seed in range(8):
        room = make_room(np.random.default_rng(seed), (5, 12))
        eyes = camera.path(room, np.random.default_rng(seed), 40)[:, :3, 3]
        radius = np.hypot(*(eyes - eyes.mean(0))[:, :2].T)
        spread.append(radius.std() / radius.mean())
    assert np.mean(spread) > 0.25


def test_depth_unprojects_onto_the_objects(built: list[BuiltRoom]) -> None:
    """The instance id says which object a pixel shows; its point must lie in that object's tight box."""
    for b in built[:4]:
        rendering = Renderer(b.room).render(b.poses, b.matrix, SIZE)
        points, valid = unproject(rendering.depth_m, b.matrix, b.poses)
        assert valid.all()
        for item in b.room.items:
            mine = points[rendering.instance == item.object_id]
            assert ((mine > item.low - 2e-3) & (mine < item.high + 2e-3)).all(), item.category
        low, high = np.array([*b.room.bounds[:2], 0.0]), np.array([*b.room.bounds[2:], b.room.height])
        assert ((points > low - 2e-3) & (points < high + 2e-3)).all()


def test_views_see_nearly_all_objects(built: list[BuiltRoom]) -> None:
    times = np.array([sum(v.get(i.object_id, 0.0) >= 0.004 for v in b.visible) for b in built for i in b.room.items])
    assert (times >= 1).mean() > 0.92
    assert (times >= 2).mean() > 0.75


def test_frames_increase_and_are_as_many_as_asked(built: list[BuiltRoom]) -> None:
    for b in built:
        assert len(b.frames) == 6
        assert list(b.frames) == sorted(set(b.frames))
        assert b.rgb.shape == (6, *SIZE, 3)
        assert b.depth_mm.shape == (6, *SIZE)
        assert b.depth_mm.dtype == np.uint16


def test_colour_shows_the_objects_colour() -> None:
    """On average a red object is red in the picture, a blue one blue."""
    hue: dict[str, list[np.ndarray]] = {"red": [], "blue": [], "green": []}
    for i in range(12):
        b = build_room((9, "x", i), views=3, size=SIZE, objects=(6, 12))
        ids = Renderer(b.room).render(b.poses, b.matrix, SIZE).instance
        for item in b.room.items:
            if (
                item.colour in hue
                and item.category not in ("plant", "picture", "television", "bookshelf")
                and (ids == item.object_id).any()
            ):
                hue[item.colour].append(b.rgb[ids == item.object_id].mean(0))
    for channel, name in ((0, "red"), (1, "green"), (2, "blue")):
        assert np.mean(hue[name], axis=0).argmax() == channel


def flat(z: float, facing: float = 1.0) -> Rendering:
    shape = (2, 96, 128)
    full = np.full(shape, z, dtype=np.float32)
    return Rendering(
        full,
        np.full(shape, BACKGROUND, dtype=np.int32),
        np.full((*shape, 3), 0.5, dtype=np.float32),
        np.full(shape, facing, dtype=np.float32),
        np.zeros(shape, dtype=bool),
    )


def test_depth_noise_grows_with_the_square_of_distance() -> None:
    spread = {}
    for z in (1.0, 2.0, 4.0):
        depth = sensor.depth_images(flat(z), np.random.default_rng(0))
        spread[z] = depth[depth > 0].std()
        assert abs(depth[depth > 0].mean() - 1000 * z) < 0.002 * 1000 * z
    assert 1.0 < spread[1.0] < 2.0
    assert spread[4.0] / spread[2.0] == pytest.approx(4.0, rel=0.1)


def test_depth_has_the_holes_of_a_sensor() -> None:
    rng = np.random.default_rng(0)
    assert (sensor.depth_images(flat(8.5), rng) == 0).all()
    assert (sensor.depth_images(flat(0.1), rng) == 0).all()
    assert (sensor.depth_images(flat(2.0, facing=0.05), rng) == 0).all()
    holes = np.mean([(sensor.depth_images(flat(2.0), np.random.default_rng(s)) == 0).mean() for s in range(10)])
    assert 0.001 < holes < 0.03
    glass = flat(2.0)
    glass.glass[:, 10:20, 10:20] = True
    assert (sensor.depth_images(glass, rng)[:, 10:20, 10:20] == 0).all()
    step = flat(2.0)
    step.depth_m[:, :, 64:] = 4.0
    depth = sensor.depth_images(step, rng)
    assert (depth[:, :, 63:65] == 0).mean() > 0.5
    assert (depth[:, :, 66:] == 0).mean() < 0.1


def test_proposals_are_like_a_detectors() -> None:
    from pipeline.metrics.boxes import iou

    best, extra, objects = [], 0, 0
    for seed in range(80):
        room = make_room(np.random.default_rng(seed), (5, 12))
        boxes = detector_boxes(room, np.random.default_rng(seed))
        truth = np.array([[*((i.low + i.high) / 2), *(i.high - i.low)] for i in room.items])
        overlaps = iou(boxes, truth)
        best += overlaps.max(0).tolist()
        extra += int((overlaps.max(1) < 0.25).sum())
        objects += len(truth)
    found = np.array(best)
    assert 0.03 < (found < 0.25).mean() < 0.12
    assert 0.80 < (found >= 0.5).mean() < 0.97
    assert found.max() < 0.99
    assert ((found >= 0.25) & (found < 0.5)).mean() > 0.01
    assert 1.5 < extra / 80 < 4.5
