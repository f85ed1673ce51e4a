"""Multi-view correspondence of features: do cells that see the same place have similar features?

Source: 3DRS (NeurIPS 2025), 2.1.2; formula: docs/method.md. Two cells of different views correspond when they fall
into the same voxel; the score is the mean cosine of their features over all such pairs. Pairs in different voxels give
the level to read it against: features that are all alike score 1 on both.

The sum of cosines over pairs follows from sums of unit vectors, so no (V*N)^2 matrix is built:
sum over cross-view pairs of a group = (|sum of all|^2 - sum over views |sum of the view|^2) / 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_CHANNEL_BLOCK = 512
"""Channels per pass: bounds the memory of float64 copies (6,272 cells x 512 channels = 26 MB)."""


class Correspondence(NamedTuple):
    """Mean cosine over cross-view pairs in the same voxel and in different voxels; NaN when there is no such pair."""

    same_voxel: float
    same_pairs: int
    different_voxel: float
    different_pairs: int


def _pairs(group: NDArray[np.int64], part: NDArray[np.int64]) -> int:
    """Count pairs within groups that are not within the same part, from group sizes and part sizes."""
    return int((group**2).sum() - (part**2).sum()) // 2


def _squared_sums(units: NDArray[np.float64], labels: NDArray[np.int64], count: int) -> float:
    """Sum over labels of |sum of their unit vectors|^2 for units (M,c)."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count))
    return float((np.add.reduceat(units[order], starts, axis=0) ** 2).sum())


def correspondence(features: NDArray[np.floating], voxel: NDArray[np.int64]) -> Correspondence:
    """Score features (V,N,C) with voxel ids (V,N), negative = no valid depth.

    Vectors of length zero count with cosine 0; a non-finite feature makes the result NaN. Raises ValueError when the
    shapes do not fit.
    """
    if features.ndim != 3 or voxel.shape != features.shape[:2]:
        raise ValueError(f"features {features.shape} and voxel {voxel.shape} are not (V,N,C) and (V,N)")
    valid = voxel >= 0
    cells = features[valid]
    if not len(cells):
        return Correspondence(float("nan"), 0, float("nan"), 0)
    view = np.nonzero(valid)[0].astype(np.int64)
    _, group = np.unique(voxel[valid], return_inverse=True)
    groups = int(group.max()) + 1
    _, part = np.unique(group * features.shape[0] + view, return_inverse=True)
    _, seen = np.unique(view, return_inverse=True)
    labels = {"group": group, "part": part, "view": seen, "all": np.zeros_like(seen)}
    sizes = {name: np.bincount(ids) for name, ids in labels.items()}
    norm = np.sqrt(np.einsum("mc,mc->m", cells, cells, dtype=np.float64))
    scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm != 0)
    sums = dict.fromkeys(labels, 0.0)
    for start in range(0, cells.shape[1], _CHANNEL_BLOCK):
        units = cells[:, start : start + _CHANNEL_BLOCK].astype(np.float64) * scale[:, None]
        for name, ids in labels.items():
            sums[name] += _squared_sums(units, ids, len(sizes[name]))
    same_pairs = _pairs(np.bincount(group, minlength=groups), sizes["part"])
    same = (sums["group"] - sums["part"]) / 2
    cross_pairs = _pairs(sizes["all"], sizes["view"])
    cross = (sums["all"] - sums["view"]) / 2
    different_pairs = cross_pairs - same_pairs
    return Correspondence(
        same / same_pairs if same_pairs else float("nan"),
        same_pairs,
        (cross - same) / different_pairs if different_pairs else float("nan"),
        different_pairs,
    )
