"""An oracle: analytic features of the true depth and poses. What a perfect 3D teacher without any appearance would say.

Every token is the concatenation of blocks of norm 1 or less, so that none dominates a cosine:

    position   world position / 8 m; sin and cos of it at ``bands`` wavelengths 16 m, 8 m, 4 m, ... (norm exactly 1)
    normal     mean world normal (length 1 where flat, shorter over edges)
    depth      sin and cos of log2(depth) at two wavelengths
    relief     direction (cos, sin) that turns with the spread of depth inside the cell: 0 flat, 90 degrees rugged
    height     sin and cos of the height above the floor, wavelength 8 m
    surface    shares of the cell that are floor-like, wall-like, other upward faces (tables, beds), anything else

All means are over the valid pixels of a cell (depth > 0), weighted by area; ``confidence`` is the valid share of the cell.
A cell without a valid pixel is all zero with confidence 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.core.options import Options
from pipeline.scenes.geometry import unproject
from pipeline.scenes.grid import TokenGrid, overlap_matrix
from pipeline.scenes.types import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures

LONGEST_WAVE_M = 16.0
POSITION_SCALE_M = 8.0
HEIGHT_WAVE_M = 8.0
RELIEF_HALF_M = 0.15
"""Spread of depth (standard deviation) at which the relief direction stands at 45 degrees."""
NORMAL_MAX_STEP = 0.05
"""Neighbouring pixels whose depths differ by more than this share lie on different surfaces: no normal there."""
FLOOR_BELOW_M = 0.15
UP_COSINE = 0.8
WALL_COSINE = 0.3

Float = NDArray[np.float64]


class GeometryOptions(Options):
    """Size of the oracle's tokens."""

    grid_rows: int = Field(12, ge=1, le=256, description="Token rows over the image.")
    grid_cols: int = Field(16, ge=1, le=256, description="Token columns over the image.")
    bands: int = Field(4, ge=1, le=8, description="Wavelengths of the position code: 16 m, 8 m, ... each half of the last.")


class GeometryTeacher(Teacher):
    """The analytic oracle. Needs depth and poses, no weights; every view by itself."""

    options_model = GeometryOptions
    options: GeometryOptions

    @property
    def dim(self) -> int:
        return 3 + 6 * self.options.bands + 3 + 4 + 2 + 2 + 4

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return TokenGrid(self.options.grid_rows, self.options.grid_cols)

    def feature_layer(self) -> str:
        return f"position ({self.options.bands} bands), normal, depth, relief, height, surface"

    def encode(self, scene: Scene) -> TeacherFeatures:
        record = scene.record
        grid = self.grid(*record.image_size)
        points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
        views = [
            self._encode_view(points[view].astype(np.float64), np.where(valid[view], depth, 0.0), pose[:3, 3], grid)
            for view, (depth, pose) in enumerate(zip(scene.depth_m, record.world_from_camera, strict=True))
        ]
        tokens, confidence = (np.stack(part).astype(np.float32) for part in zip(*views, strict=True))
        return TeacherFeatures(tokens, grid, confidence)

    def _encode_view(self, points: Float, depth_m: Float, camera: Float, grid: TokenGrid) -> tuple[Float, Float]:
        """Compute a view's tokens (G,K,D) and valid share (G,K) from world points (H,W,3), depth (H,W) and camera."""
        valid = depth_m > 0
        normals, has_normal = world_normals(points, depth_m, camera)
        mean = CellMean(grid, depth_m.shape)
        position = mean(points, valid)
        depth = mean(depth_m[..., None], valid)[..., 0]
        square = mean(depth_m[..., None] ** 2, valid)[..., 0]
        spread_m = np.sqrt(np.clip(square - depth**2, 0.0, None))
        turn = np.pi / 2 * spread_m / (spread_m + RELIEF_HALF_M)
        octave = np.log2(np.clip(depth, 0.1, None))
        blocks = [
            position / POSITION_SCALE_M,
            *self._position_waves(position),
            mean(normals, has_normal),
            waves(octave / 4.0) / np.sqrt(2.0),
            waves(octave / 2.0) / np.sqrt(2.0),
            np.stack([np.cos(turn), np.sin(turn)], axis=-1),
            waves(position[..., 2] / HEIGHT_WAVE_M),
            mean(surface_kinds(points, normals), has_normal),
        ]
        share = mean.share(valid)
        return np.concatenate(blocks, axis=-1) * (share > 0)[..., None], share

    def _position_waves(self, position: Float) -> list[Float]:
        bands = self.options.bands
        scale = 1.0 / np.sqrt(3.0 * bands)
        lengths_m = [LONGEST_WAVE_M / 2**band for band in range(bands)]
        return [waves(position[..., axis] / length) * scale for length in lengths_m for axis in range(3)]


class CellMean:
    """Means of pixel values (H,W,c) over the cells of a grid, weighted by mask and exact overlapped area."""

    def __init__(self, grid: TokenGrid, size: tuple[int, ...]):
        self._rows = overlap_matrix(grid.row_edges(), np.linspace(0.0, 1.0, size[0] + 1))
        self._cols = overlap_matrix(grid.col_edges(), np.linspace(0.0, 1.0, size[1] + 1))

    def share(self, mask: NDArray[np.bool_]) -> Float:
        """Return the share (G,K) of each cell's area that the mask covers."""
        return self._rows @ mask.astype(np.float64) @ self._cols.T

    def __call__(self, values: Float, mask: NDArray[np.bool_]) -> Float:
        """Average values over each cell's masked area: (G,K,c); zero where the mask covers nothing."""
        masked = np.where(mask[..., None], values, 0.0)
        total = np.moveaxis(self._rows @ np.moveaxis(masked, -1, 0) @ self._cols.T, 0, -1)
        return total / np.maximum(self.share(mask), 1e-12)[..., None]


def waves(turns: Float) -> Float:
    """Return [sin, cos] of a number of full turns, on a new last axis."""
    return np.stack([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)], axis=-1)


def world_normals(points: Float, depth_m: Float, camera: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Estimate unit normals (H,W,3) that face the camera (central differences over 4 pixels) and where to trust them."""
    right, left = np.roll(points, -2, axis=1), np.roll(points, 2, axis=1)
    below, above = np.roll(points, -2, axis=0), np.roll(points, 2, axis=0)
    normals = np.cross(below - above, right - left)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = normals / np.maximum(length, 1e-12)
    normals *= np.where(((camera - points) * normals).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    trusted = (depth_m > 0) & (length[..., 0] > 1e-12)
    for shift, axis in ((2, 0), (-2, 0), (2, 1), (-2, 1)):
        other = np.roll(depth_m, shift, axis=axis)
        trusted &= (other > 0) & (np.abs(other - depth_m) < NORMAL_MAX_STEP * np.maximum(depth_m, 1e-3))
    trusted[:2], trusted[-2:], trusted[:, :2], trusted[:, -2:] = False, False, False, False
    return normals, trusted


def surface_kinds(points: Float, normals: Float) -> Float:
    """Return a one-hot class per pixel (H,W,4): floor-like, wall-like, other upward face, anything else."""
    up = normals[..., 2] > UP_COSINE
    floor = up & (np.abs(points[..., 2]) < FLOOR_BELOW_M)
    wall = np.abs(normals[..., 2]) < WALL_COSINE
    kinds = np.stack([floor, wall, up & ~floor, ~(up | wall)], axis=-1)
    return kinds.astype(np.float64)
