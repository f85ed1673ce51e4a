"""A teacher's features on another grid before they are stored: averaged by exact overlapped area, never normalised before.

Same rule and weights as grid.resample_tokens("area"), but rows first and then columns, only the cells that overlap, one view at
a time in the processor's cache: 40 ms instead of 0.5 s for a scene of VGGT on 14 x 14 cells. A pose has no grid and stays.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipeline.scenes.grid import TokenGrid, area_matrices
from pipeline.teachers.base import TeacherFeatures


def resample_features(features: TeacherFeatures, target: TokenGrid) -> TeacherFeatures:
    """Average tokens, confidence and depth of ``features`` into ``target``; zeros where the teacher saw nothing."""
    rows, cols = (weights.astype(np.float32) for weights in area_matrices(features.grid, target))

    def averaged(maps: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if maps is None else _average(maps[..., None], rows, cols)[..., 0]

    return dataclasses.replace(
        features,
        tokens=_average(features.tokens, rows, cols),
        grid=target,
        seen=features.grid.window,
        confidence=averaged(features.confidence),
        depth=averaged(features.depth),
    )


def _average(maps: NDArray[np.float32], rows: NDArray[np.float32], cols: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average (V,G,K,D) to (V,G',K',D) with ``rows`` (G',G) and ``cols`` (K',K), whose rows sum to 1 or 0."""
    views, height, width, dim = maps.shape
    result = np.empty((views, len(rows), len(cols), dim), dtype=np.float32)
    lines = np.empty((len(rows), width, dim), dtype=np.float32)
    row_bands, col_bands = _bands(rows), _bands(cols)
    for view in range(views):
        flat = np.ascontiguousarray(maps[view]).reshape(height, width * dim)
        for line, (weights, band) in zip(lines, row_bands, strict=True):
            np.matmul(weights, flat[band], out=line.reshape(-1))
        for col, (weights, band) in enumerate(col_bands):
            np.matmul(weights, lines[:, band], out=result[view, :, col])
    return result


def _bands(matrix: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], slice]]:
    """Return each row's weights and their source cells: the cells that a target cell overlaps are consecutive."""
    found = []
    for row in matrix:
        used = np.flatnonzero(row)
        band = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        found.append((row[band], band))
    return found
