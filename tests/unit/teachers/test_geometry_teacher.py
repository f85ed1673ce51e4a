"""The analytic oracle against a room whose geometry is known in closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from box_rooms import ROOM_M, camera, make_scene, render

from pipeline.core.errors import ConfigError
from pipeline.core.registry import create
from pipeline.scenes.types import Scene


def teacher(**options: int):
    return create("teachers", {"name": "oracle", "kind": "geometry", "options": options})


def looking(position: list[float], heading: float, pitch: float) -> Scene:
    scene = make_scene(views=1)
    pose = camera(np.array(position), heading, pitch)
    rgb, depth = render(pose, scene.record.intrinsics, (96, 128))
    record = dataclasses.replace(scene.record, world_from_camera=pose[None])
    return Scene(record, rgb[None], depth[None])


def test_positions_and_normals_on_a_wall() -> None:
    scene = looking([2.0, 2.5, 1.25], 0.0, 0.0)
    found = teacher(grid_rows=4, grid_cols=4, bands=2).encode(scene)
    middle = found.tokens[0, 1:3, 1:3].reshape(-1, found.tokens.shape[-1])
    np.testing.assert_allclose(middle[:, 0] * 8.0, ROOM_M[0], atol=1e-3)
    assert (np.abs(middle[:, 1] * 8.0 - 2.5) < 0.8).all()
    np.testing.assert_allclose(middle[:, 15:18], [[-1, 0, 0]] * 4, atol=1e-5)
    np.testing.assert_allclose(middle[:, -4:], [[0, 1, 0, 0]] * 4, atol=1e-5)
    assert (found.confidence == 1).all()


def test_looking_down_sees_the_floor() -> None:
    found = teacher(grid_rows=2, grid_cols=2).encode(looking([2.0, 2.5, 1.0], 0.3, np.pi / 2))
    np.testing.assert_allclose(found.tokens[0, :, :, 2], 0.0, atol=1e-4)
    np.testing.assert_allclose(found.tokens[0, :, :, 27:30], np.broadcast_to([0, 0, 1], (2, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.tokens[0, :, :, -4], 1.0, atol=1e-6)


def test_position_waves_have_unit_norm_and_tell_places_apart() -> None:
    found = teacher().encode(make_scene(views=4))
    waves = found.tokens[..., 3:27].reshape(-1, 24)[found.confidence.reshape(-1) > 0]
    np.testing.assert_allclose(np.linalg.norm(waves, axis=1), 1.0, atol=1e-5)
    positions = found.tokens[..., :3].reshape(-1, 3)[found.confidence.reshape(-1) > 0] * 8
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    cosine = waves @ waves.T
    assert cosine[distance < 0.1].min() > 0.97
    assert cosine[distance > 2.0].mean() < 0.5


def test_blocks_have_comparable_norms() -> None:
    found = teacher().encode(make_scene(views=4))
    tokens = found.tokens.reshape(-1, found.tokens.shape[-1])[found.confidence.reshape(-1) == 1]
    sizes = [3, 24, 3, 4, 2, 2, 4]
    norms = [np.linalg.norm(block, axis=1).mean() for block in np.split(tokens, np.cumsum(sizes)[:-1], axis=1)]
    assert max(norms) <= 1.1
    assert min(norms[1:]) > 0.6


def test_invalid_depth_never_enters_a_mean() -> None:
    scene = make_scene(views=2)
    found = teacher().encode(scene)
    assert (found.confidence[:, :2, :2] == 0).all()
    assert (found.tokens[:, :2, :2] == 0).all()
    poisoned = scene.depth_m.copy()
    poisoned[:, 40:44, 40:44] = 0
    again = teacher().encode(dataclasses.replace(scene, depth_m=poisoned))
    touched = again.confidence < found.confidence
    assert 0 < touched.sum() < 20
    np.testing.assert_allclose(again.tokens[..., :3][touched], found.tokens[..., :3][touched], atol=0.05)
    empty = teacher().encode(dataclasses.replace(scene, depth_m=np.zeros_like(scene.depth_m)))
    assert (empty.tokens == 0).all()
    assert (empty.confidence == 0).all()


def test_depth_may_have_its_own_size() -> None:
    scene, small = make_scene("s"), make_scene("s", size=(48, 64))
    record = dataclasses.replace(scene.record, depth_intrinsics=small.record.intrinsics, depth_size=(48, 64))
    mixed = teacher().encode(Scene(record, scene.rgb, small.depth_m))
    valid = mixed.confidence == 1
    difference = np.abs(mixed.tokens - teacher().encode(scene).tokens)[..., :3][valid]
    assert difference.mean() * 8 < 0.05


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bands'"):
        teacher(band=3)
