"""World-position encoding ``avg-discrete-sin3d`` of visual tokens, box centres and the ``<coord>`` token.

Source: Video-3D-LLM as used by 3DRS (docs/method.md): a cell's mean world point is clamped to a fixed volume, rounded to 0.1 m
voxels and encoded by sines and cosines per axis. Unlike the reference (bf16 coordinates in training, fp16 in evaluation) voxel
numbers are integers computed in float32, and cells without valid depth get no encoding (the reference averages the camera
centre into them).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.scenes.types import SceneRecord

LOWER_M = np.array([-15.0, -15.0, -5.0], dtype=np.float32)
UPPER_M = np.array([15.0, 15.0, 5.0], dtype=np.float32)
VOXEL_M = np.float32(0.1)
VOXELS = (301, 301, 101)
"""Number of voxels per axis: both ends of the volume are voxel centres."""


def discretise(points_m: NDArray[np.floating]) -> NDArray[np.int64]:
    """Turn world points (..., 3) in metres into voxels int64 (..., 3) in 0..300, 0..300, 0..100 (rounding half to even)."""
    clamped = np.clip(np.asarray(points_m, dtype=np.float32), LOWER_M, UPPER_M)
    numbers: NDArray[np.int64] = np.rint((clamped - LOWER_M) / VOXEL_M).astype(np.int64)
    return numbers


def clamped_centres(records: Sequence[SceneRecord]) -> str | None:
    """Return how many cameras and boxes lie outside of the volume and are encoded as if at its edge, in words; None for none.

    A scan in another coordinate system (millimetres, a map's origin far away) gets equal encodings everywhere.
    """
    total, outside, scenes = 0, 0, []
    for record in records:
        centres = np.concatenate([record.world_from_camera[:, :3, 3], record.candidate_boxes().reshape(-1, 6)[:, :3]])
        beyond = int(((centres < LOWER_M) | (centres > UPPER_M)).any(1).sum())
        total, outside = total + len(centres), outside + beyond
        scenes += [record.scene_id] if beyond else []
    if not outside:
        return None
    (x, y, z), (right, far, top) = LOWER_M, UPPER_M
    return (
        f"{outside:,} of {total:,} cameras and boxes lie outside of what positions are encoded in (x {x:g} to {right:g}, "
        f"y {y:g} to {far:g}, z {z:g} to {top:g} m) and count as at its edge: {len(scenes)} scenes, first {scenes[0]!r}"
    )


def axis_table(count: int, width: int) -> torch.Tensor:
    """Encode the numbers 0..count-1 along one axis, float32 (count, width // 3).

    Channel k holds sin (even k) or cos (odd k) of number / 10000^(2 floor(k/2) / F) with F = width // 3. float32
    throughout, as the released models saw it (float64 would differ by up to 2e-5 at number 300).
    """
    features = width // 3
    k = torch.arange(features, dtype=torch.float32)
    wavelength = 10000 ** (2 * torch.div(k, 2, rounding_mode="floor") / features)
    angle = torch.arange(count, dtype=torch.float32)[:, None] / wavelength
    return torch.where(k.long() % 2 == 0, angle.sin(), angle.cos())


class WorldPositions:
    """Encodings of voxel numbers at one width, by table lookup (the numbers are few, the sines are not free)."""

    def __init__(self, width: int, *, scale: float = 1.0):
        if width < 3:
            raise ValueError(f"world positions need a width of at least 3, got {width}")
        self.width = width
        self.tables = [axis_table(count, width) * scale for count in VOXELS]

    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        """Encode voxel numbers int64 (..., 3) as float32 (..., width): x, y, z parts, then 0 for the last width % 3."""
        parts = [table[numbers[..., axis]] for axis, table in enumerate(self.tables)]
        tail = self.width - 3 * (self.width // 3)
        if tail:
            parts.append(parts[0].new_zeros((*numbers.shape[:-1], tail)))
        return torch.cat(parts, dim=-1)
