"""Geometry against plain loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scenes.geometry import box_coverage, cell_means, inside_box, unproject, voxel_ids
from pipeline.scenes.grid import TokenGrid

CAMERA = np.array([[20.0, 0.0, 7.5], [0.0, 22.0, 5.5], [0.0, 0.0, 1.0]])


def pose() -> np.ndarray:
    """A turn about z by 30 degrees and a shift."""
    c, s = np.cos(0.5236), np.sin(0.5236)
    return np.array([[c, -s, 0, 1.0], [s, c, 0, -2.0], [0, 0, 1, 0.5], [0, 0, 0, 1.0]])


@pytest.fixture
def cloud() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 4.0, (2, 12, 16)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0
    return unproject(depth, CAMERA, np.stack([np.eye(4), pose()]))


def test_unproject_pixel_by_pixel() -> None:
    depth = np.full((2, 12, 16), 2.0, dtype=np.float32)
    points, valid = unproject(depth, CAMERA, np.stack([np.eye(4), pose()]))
    assert points.dtype == np.float32
    assert valid.all()
    local = np.array([(3 - 7.5) * 2 / 20, (8 - 5.5) * 2 / 22, 2.0, 1.0])
    np.testing.assert_allclose(points[0, 8, 3], local[:3], atol=1e-6)
    np.testing.assert_allclose(points[1, 8, 3], (pose() @ local)[:3], atol=1e-6)


def test_unproject_marks_what_is_no_depth() -> None:
    depth = np.ones((1, 12, 16), dtype=np.float32)
    depth[0, 0, :4] = [0.0, -1.0, np.nan, np.inf]
    points, valid = unproject(depth, CAMERA, np.eye(4)[None])
    assert valid.sum() == depth.size - 4
    assert not valid[0, 0, :4].any()
    assert np.isfinite(points).all()
    assert (points[0, 0, :4] == 0).all()


def test_unproject_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        unproject(np.ones((2, 4, 4), dtype=np.float32), CAMERA, np.eye(4)[None])


@pytest.mark.parametrize(
    "grid", [TokenGrid(3, 4), TokenGrid(5, 3, (0.1, 0.05, 0.9, 0.8)), TokenGrid(2, 2, (0.0, 0.0, 1.0, 0.5)), TokenGrid(24, 8)]
)
def test_cell_means_and_coverage_equal_loops(cloud: tuple[np.ndarray, np.ndarray], grid: TokenGrid) -> None:
    points, valid = cloud
    box = np.array([0.2, 0.0, 2.0, 2.0, 1.5, 2.2])
    means, shares = cell_means(points, valid, grid)
    coverage = box_coverage(points, valid, box[None], grid)
    rows, cols = grid.row_edges(), grid.col_edges()
    low, high = box[:3] - box[3:] / 2, box[:3] + box[3:] / 2
    for view in range(2):
        for g in range(grid.rows):
            for k in range(grid.cols):
                use, pixels, inside = [], 0, 0
                for v in range(12):
                    for u in range(16):
                        x, y = (u + 0.5) / 16, (v + 0.5) / 12
                        if cols[k] <= x < cols[k + 1] and rows[g] <= y < rows[g + 1]:
                            pixels += 1
                            if valid[view, v, u]:
                                use.append(points[view, v, u].astype(np.float64))
                                inside += int(((use[-1] >= low) & (use[-1] <= high)).all())
                expected = np.mean(use, axis=0) if use else np.zeros(3)
                np.testing.assert_allclose(means[view, g, k], expected, atol=1e-5)
                assert shares[view, g, k] == pytest.approx(len(use) / max(pixels, 1))
                assert coverage[0, view, g, k] == pytest.approx(inside / max(pixels, 1))


def test_invalid_points_never_enter_a_mean() -> None:
    points = np.full((1, 4, 4, 3), 7.0, dtype=np.float32)
    valid = np.zeros((1, 4, 4), dtype=bool)
    points[0, 0, 0], valid[0, 0, 0] = 2.0, True
    points[0, 1, 1] = np.nan
    means, shares = cell_means(points, valid, TokenGrid(2, 2))
    np.testing.assert_array_equal(means[0, 0, 0], [2.0, 2.0, 2.0])
    assert shares[0, 0, 0] == 0.25
    assert (means[0, 1:] == 0).all()
    assert (shares[0, 1:] == 0).all()


def test_coverage_counts_faces_and_all_pixels() -> None:
    points = np.zeros((1, 2, 2, 3), dtype=np.float32)
    points[0, 0, 0] = [0.5, 0.5, 0.5]
    points[0, 0, 1] = [0.5, 0.5, 0.5001]
    valid = np.array([[[True, True], [True, False]]])
    box = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert box_coverage(points, valid, box[None], TokenGrid(1, 1))[0, 0, 0, 0] == 0.5
    np.testing.assert_array_equal(inside_box(points, valid, box), [[[True, False], [True, False]]])
    assert box_coverage(points, valid, np.zeros((0, 6)), TokenGrid(1, 1)).shape == (0, 1, 1, 1)


def test_voxels_round_half_to_even_and_mark_invalid() -> None:
    points = np.array([[0.25, 0, 0], [0.75, 0, 0], [1.25, 0, 0], [-0.25, 0, 0], [-0.8, 0, 0], [np.nan, 0, 0]])
    valid = np.array([True, True, True, True, True, False])
    ids = voxel_ids(points, valid, 0.5)
    assert ids.dtype == np.int64
    zero = voxel_ids(np.zeros((1, 3)), np.array([True]), 0.5)[0]
    assert ids[0] == zero == ids[3]  # 0.5 and -0.5 round to 0
    assert ids[1] == ids[2]  # 1.5 and 2.5 both round to 2
    assert ids[4] not in (zero, ids[1])
    assert ids[5] == -1


def test_voxels_are_one_to_one_and_follow_the_origin() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 0.3
    everywhere = np.ones(len(grid), dtype=bool)
    ids = voxel_ids(grid, everywhere, 0.3)
    assert len(np.unique(ids)) == len(grid)
    assert (ids >= 0).all()
    np.testing.assert_array_equal(voxel_ids(grid + 0.6, everywhere, 0.3, (0.6, 0.6, 0.6)), ids)


def test_voxels_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="not positive"):
        voxel_ids(np.zeros((1, 3)), np.array([True]), 0.0)
    with pytest.raises(ValueError, match="not finite or more than"):
        voxel_ids(np.full((1, 3), 1e6), np.array([True]), 0.1)
    with pytest.raises(ValueError, match="not finite"):
        voxel_ids(np.full((1, 3), np.nan), np.array([True]), 0.1)
