"""Figures of geometry on rooms whose geometry is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from box_rooms import make_scene, write_dataset

from pipeline.consistency import agreement, describe, invalid_depth, shared_cells, unmasked_means
from pipeline.scene import Scene

SCENE = make_scene("consistency", views=4, size=(96, 128))


def with_depth(change: np.ndarray) -> Scene:
    """The scene with depth multiplied by ``change``."""
    return replace(SCENE, depth_m=(SCENE.depth_m * change).astype(np.float32))


def test_whole_cells_without_depth_move_and_others_stay() -> None:
    """The room's invalid patch is 16 of 96 rows and 16 of 128 columns: on 6x8 cells exactly one cell of a view."""
    grid6x8 = replace(SCENE, depth_m=SCENE.depth_m[:, :, :96])  # square cells of 16 pixels: 6x6
    figures = invalid_depth(grid6x8, 6)
    assert figures.cells == 4 * 36
    assert figures.holding == figures.empty == figures.moved == pytest.approx(1 / 36)
    assert figures.shift_mean_m == figures.shift_p95_m == 0


def test_the_shift_is_the_share_of_the_way_to_the_camera() -> None:
    """Every second column invalid: each unmasked mean lies half way between cell and camera."""
    stripes = np.ones(SCENE.depth_m.shape)
    stripes[:, :, ::2] = 0
    bare = make_scene("consistency", views=4, size=(96, 128))
    bare.depth_m[:] = np.where(bare.depth_m == 0, 1.0, bare.depth_m)
    figures = invalid_depth(replace(bare, depth_m=(bare.depth_m * stripes).astype(np.float32)), 4)
    assert (figures.holding, figures.empty, figures.moved) == (1, 0, 1)
    depth = np.median(bare.depth_m)
    assert 0.4 * depth < figures.shift_mean_m < 0.7 * depth
    means = np.array([[[[3.0, 4.0, 0.0]]]], dtype=np.float32)
    half = unmasked_means(means, np.full((1, 1, 1), 0.5, dtype=np.float32), np.eye(4)[None])
    np.testing.assert_allclose(half[0, 0, 0], (1.5, 2.0, 0.0))


def test_reference_sampling_uses_378_of_384_pixels() -> None:
    last = np.ones(SCENE.depth_m.shape)
    last[:, -1] = 0  # the last of 96 rows is rows 380 to 383 of 384: not used by the reference
    whole, reference = (invalid_depth(with_depth(last), 14, as_reference=r) for r in (False, True))
    untouched = invalid_depth(SCENE, 14, as_reference=True)
    assert whole.holding > invalid_depth(SCENE, 14).holding
    assert reference == untouched


def test_views_of_one_room_agree_and_moved_ones_do_not() -> None:
    pairs = [(0, 1), (1, 0), (2, 3)]
    good = agreement(SCENE, pairs)
    assert good.pixels == sum(int((SCENE.depth_m[a] > 0).sum()) for a, _ in pairs)
    assert 0.2 < good.overlap < 1
    assert good.measured > 0.9
    assert good.median_m < 0.01
    poses = SCENE.record.world_from_camera.copy()
    poses[1] = poses[1] @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.2], [0, 0, 0, 1.0]])
    moved = agreement(replace(SCENE, record=replace(SCENE.record, world_from_camera=poses)), [(0, 1)])
    assert moved.median_m == pytest.approx(0.2, abs=0.05)
    assert moved.agree < 0.5


def test_views_that_see_nothing_in_common() -> None:
    nothing = agreement(with_depth(np.zeros(SCENE.depth_m.shape)), [(0, 1)])
    assert (nothing.pixels, nothing.overlap, nothing.agree) == (0, 0, 0)
    assert np.isnan(nothing.median_m)
    one = replace(
        SCENE,
        record=replace(SCENE.record, frame_ids=("0",), world_from_camera=SCENE.record.world_from_camera[:1]),
        depth_m=SCENE.depth_m[:1],
    )
    assert shared_cells(one, 8) == 0
    twice = replace(
        SCENE,
        record=replace(SCENE.record, world_from_camera=SCENE.record.world_from_camera[[0, 0]]),
        depth_m=SCENE.depth_m[[0, 0]],
    )
    assert shared_cells(twice, 8) > 0.95


def test_description_of_a_data_set(tmp_path: Path) -> None:
    index = write_dataset(tmp_path, [SCENE])
    text = describe(index.path, sides=(14,))
    assert text.startswith("consistency: 4 views, ")
    assert "14x14 cells, reference sampling" in text
    assert "pairs of views: overlap" in text
