"""Make z point up: by a matrix, or from the cameras under an assumption that is stated and checked."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.errors import DataError

Gravity = Literal["none", "matrix", "trajectory"]

PRIOR = 0.001
"""Weight of the cameras' mean upward axis against their sideways axes: about (3 degrees of roll / 25 degrees of pitch)^2 over
ten independent frames, so it decides only where cameras that all look the same way leave the tilt open."""
LARGEST_ROLL_DEG = 15.0
"""Root mean square roll above which cameras were not held level and the assumption is refused."""
FLOOR_PERCENTILE = 1.0


def up_from_cameras(world_from_camera: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Upward unit vector (3,) of poses (V,4,4) and the cameras' root mean square roll about it in degrees.

    Assumption: the camera was held without roll, so its sideways axis x is horizontal. Up is the direction that is most
    perpendicular to the x axes of all frames; its sign, and its tilt where all cameras look the same way, come from the mean
    upward axis -y.
    """
    sideways, upward = world_from_camera[:, :3, 0], -world_from_camera[:, :3, 1]
    mean_up = upward.mean(0)
    spread = sideways.T @ sideways / len(sideways) - PRIOR * np.outer(mean_up, mean_up)
    up = np.linalg.eigh(spread)[1][:, 0]
    up = up if up @ mean_up >= 0 else -up
    roll = np.degrees(np.arcsin(np.clip(sideways @ up, -1, 1)))
    return up, float(math.sqrt((roll**2).mean()))


def level(world_from_camera: NDArray[np.float64], *, where: str) -> NDArray[np.float64]:
    """The smallest rotation (4,4) that turns the cameras' up to z. DataError when the cameras roll too much to tell."""
    up, roll_deg = up_from_cameras(world_from_camera)
    if roll_deg > LARGEST_ROLL_DEG:
        raise DataError(
            f"gravity: trajectory assumes a camera that is held level, but it rolls by {roll_deg:.0f} degrees rms",
            where=where,
            allowed=f"up to {LARGEST_ROLL_DEG:.0f} degrees",
            fix="set gravity: matrix with a 4x4 matrix, or gravity: none",
        )
    return turned_to_z(up)


def turned_to_z(up: ArrayLike) -> NDArray[np.float64]:
    """The smallest rotation (4,4) that turns the unit vector ``up`` (3,) to (0, 0, 1) (Rodrigues' formula)."""
    a = np.asarray(up, dtype=np.float64)
    result = np.eye(4)
    if a[2] < -1 + 1e-12:  # upside down: half a turn about x
        result[:3, :3] = np.diag([1.0, -1.0, -1.0])
        return result
    v = np.array([a[1], -a[0], 0.0])
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    result[:3, :3] = np.eye(3) + cross + cross @ cross / (1 + a[2])
    return result


def floor_height(z: NDArray[np.float32]) -> float:
    """Height of the floor in metres: the 1st percentile of the heights (N,) of what the views see (0 for nothing)."""
    return float(np.percentile(z, FLOOR_PERCENTILE)) if z.size else 0.0
