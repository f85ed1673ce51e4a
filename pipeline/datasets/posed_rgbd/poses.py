"""Poses from text: matrices, quaternions, and which of them are usable."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.errors import DataError, FrameError

EXACT = 1e-4
"""A rotation is taken as it stands when R R^T differs from the identity by no more than this (rounding in the file)."""
FARTHEST_M = 10_000.0
"""A camera this far from the origin is a damaged number or lost tracking."""
USABLE = 0.02
"""Up to this it is replaced by the nearest rotation; above it is no pose."""


def number(text: str) -> float:
    """A number as C programs print it; ``-1.#IND``, ``1.#QNAN`` and the like are NaN. ValueError for anything else."""
    return math.nan if ".#" in text else float(text)


def read_text(path: Path) -> str:
    """A text file of a scan. DataError when it is missing, cannot be read or is no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text ({error})") from None


def read_matrix(path: Path) -> NDArray[np.float64]:
    """A 4x4 matrix from a text file, non-finite numbers included. FrameError when there are not 16 numbers."""
    text = read_text(path)
    try:
        values = [number(token) for token in text.split()]
    except ValueError as error:
        raise FrameError(f"matrix file {path} cannot be read ({error})", allowed="4 rows of 4 numbers") from None
    if len(values) != 16:
        raise FrameError(f"matrix file {path} holds {len(values)} numbers", allowed="4 rows of 4 numbers")
    return np.array(values).reshape(4, 4)


def usable_pose(matrix: ArrayLike) -> NDArray[np.float64] | None:
    """``matrix`` (4,4) as a rigid pose, or None: not finite, mirrored, sheared, scaled, far away, another last row.

    ScanNet writes -inf where tracking failed.
    """
    pose = np.array(matrix, dtype=np.float64)
    if not np.isfinite(pose).all() or np.abs(pose[3] - (0, 0, 0, 1)).max() > EXACT or np.abs(pose[:3, 3]).max() >= FARTHEST_M:
        return None
    rotation = pose[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if error > USABLE or np.linalg.det(rotation) < 0:
        return None
    if error > EXACT:
        left, _, right = np.linalg.svd(rotation)
        pose[:3, :3] = left @ right
    pose[3] = 0, 0, 0, 1
    return pose


def pose_of_quaternion(translation: ArrayLike, quaternion: ArrayLike) -> NDArray[np.float64] | None:
    """Pose (4,4) of a position (3,) in metres and a quaternion (4,) x, y, z, w; None when either is not usable.

    The quaternion may be off unit length by 5 % (files hold four decimals) and is normalised.
    """
    x, y, z, w = np.asarray(quaternion, dtype=np.float64)
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if not abs(length - 1) < 0.05 or not (np.abs(np.asarray(translation, dtype=np.float64)) < FARTHEST_M).all():
        return None
    x, y, z, w = x / length, y / length, z / length, w / length
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose
