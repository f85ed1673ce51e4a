"""Unprojection with validity, masked cell means, voxel ids and box tests: numpy, float32 or better, always.

Invalid depth never enters a mean (the reference averages the zeros in), cells are cut in normalised image coordinates
(see grid.py), and voxel ids are integers with a validity value instead of rounded floats in the training dtype.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.scenes.grid import TokenGrid

VOXEL_BITS = 21
"""Bits per axis of a packed voxel id: +-1,048,575 voxels around the origin on each axis."""

_HALF = 1 << (VOXEL_BITS - 1)


def unproject(
    depth_m: NDArray[np.float32], depth_intrinsics: NDArray[np.float64], world_from_camera: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """World points float32 (V,H,W,3) and their validity (V,H,W) from depth (V,H,W), intrinsics (3,3), poses (V,4,4).

    Invalid pixels (depth 0, negative or not finite) have the point (0, 0, 0) and validity False. Works view by view in
    float64, so memory stays bounded. Raises ValueError for shapes that do not fit.
    """
    depth = np.asarray(depth_m)
    poses = np.asarray(world_from_camera, dtype=np.float64)
    camera = np.asarray(depth_intrinsics, dtype=np.float64)
    if depth.ndim != 3 or poses.shape != (len(depth), 4, 4) or camera.shape != (3, 3):
        raise ValueError(f"depth {depth.shape}, intrinsics {camera.shape} and poses {poses.shape} do not fit together")
    _, height, width = depth.shape
    x = (np.arange(width) - camera[0, 2]) / camera[0, 0]
    y = (np.arange(height) - camera[1, 2]) / camera[1, 1]
    valid = np.isfinite(depth) & (depth > 0)
    points = np.zeros((*depth.shape, 3), dtype=np.float32)
    for view, pose in enumerate(poses):
        z = np.where(valid[view], depth[view], 0).astype(np.float64)
        local = np.stack([z * x, z * y[:, None], z], axis=-1)
        points[view] = np.where(valid[view][..., None], local @ pose[:3, :3].T + pose[:3, 3], 0.0)
    return points, valid


def _membership(edges: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    """0/1 matrix (cells, pixels): pixel centre (i + 0.5) / pixels lies in [edge, next edge); the last edge is inclusive."""
    centres = (np.arange(pixels) + 0.5) / pixels
    cell = np.searchsorted(edges, centres, side="right") - 1
    cell[centres == edges[-1]] = len(edges) - 2
    return (cell == np.arange(len(edges) - 1)[:, None]).astype(np.float64)


def _cell_sums(images: NDArray[np.float64], grid: TokenGrid) -> NDArray[np.float64]:
    """Sums of images (...,H,W) over the pixels of each cell -> (...,G,K), as two small matrix products."""
    rows = _membership(grid.row_edges(), images.shape[-2])
    cols = _membership(grid.col_edges(), images.shape[-1])
    result: NDArray[np.float64] = rows @ (images @ cols.T)
    return result


def _pixels_per_cell(grid: TokenGrid, height: int, width: int) -> NDArray[np.float64]:
    """Number of pixels of each cell (G,K)."""
    rows = _membership(grid.row_edges(), height).sum(1)
    return rows[:, None] * _membership(grid.col_edges(), width).sum(1)


def cell_means(
    points: NDArray[np.float32], valid: NDArray[np.bool_], grid: TokenGrid
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Masked means float32 (V,G,K,3) of points (V,H,W,3) per token cell, and the valid share (V,G,K) of its pixels.

    A pixel belongs to the cell that its centre lies in. Cells without a valid pixel have mean 0 and share 0.
    """
    if points.shape != (*valid.shape, 3):
        raise ValueError(f"points {points.shape} and validity {valid.shape} do not fit together")
    masked = np.where(valid[..., None], points, 0.0).astype(np.float64)
    sums = np.moveaxis(_cell_sums(np.moveaxis(masked, -1, 1), grid), 1, -1)
    counts = _cell_sums(valid.astype(np.float64), grid)
    pixels = _pixels_per_cell(grid, *valid.shape[1:])
    means = sums / np.maximum(counts, 1.0)[..., None]
    return means.astype(np.float32), (counts / np.maximum(pixels, 1.0)).astype(np.float32)


def voxel_ids(
    points: NDArray[np.float32], valid: NDArray[np.bool_], voxel_m: float, origin: ArrayLike = (0.0, 0.0, 0.0)
) -> NDArray[np.int64]:
    """Packed ids int64 (...) of the voxels of points (...,3); -1 where invalid.

    The voxel index on each axis is (coordinate - origin) / voxel_m, rounded half to even (the paper's definition with
    origin 0). ``voxel_m`` and ``origin`` are in metres. Raises ValueError for a size that is not positive and for points
    more than 2^20 - 1 voxels away.
    """
    if not voxel_m > 0:
        raise ValueError(f"voxel size {voxel_m} m is not positive")
    use = np.asarray(valid, dtype=bool)
    shifted = np.where(use[..., None], points, 0.0).astype(np.float64) - np.where(use[..., None], np.asarray(origin), 0.0)
    index = np.rint(shifted / voxel_m)
    if not (np.abs(index) < _HALF).all():
        raise ValueError(f"a valid point is not finite or more than {_HALF - 1} voxels of {voxel_m} m from {origin!r}")
    packed = index.astype(np.int64) + _HALF
    ids = (packed[..., 0] << (2 * VOXEL_BITS)) | (packed[..., 1] << VOXEL_BITS) | packed[..., 2]
    return np.where(use, ids, np.int64(-1))


def inside_box(points: NDArray[np.float32], valid: NDArray[np.bool_], box: ArrayLike) -> NDArray[np.bool_]:
    """Return which points (...,3) are valid and inside one box (6,) [cx,cy,cz,dx,dy,dz], faces included."""
    corners = np.asarray(box, dtype=np.float64)
    low, high = corners[:3] - corners[3:] / 2, corners[:3] + corners[3:] / 2
    inside = np.array(valid, dtype=bool)
    for axis in range(3):
        inside &= (points[..., axis] >= low[axis]) & (points[..., axis] <= high[axis])
    return inside


def box_coverage(
    points: NDArray[np.float32], valid: NDArray[np.bool_], boxes: NDArray[np.float64], grid: TokenGrid
) -> NDArray[np.float32]:
    """Share (N,V,G,K) of each cell's pixels that are valid and inside each of the boxes (N,6), faces included.

    The denominator is all pixels of the cell, valid or not, as in the reference's rule "91 of 729 pixels".
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
    pixels = np.maximum(_pixels_per_cell(grid, *valid.shape[1:]), 1.0)
    coverage = np.zeros((len(boxes), len(valid), grid.rows, grid.cols), dtype=np.float32)
    for number, box in enumerate(boxes):
        coverage[number] = _cell_sums(inside_box(points, valid, box).astype(np.float64), grid) / pixels
    return coverage
