"""A teacher's features on another grid before they are stored: averaged by exact overlapped area, never normalised before.

Same rule and weights as grid.resample_tokens("area"), rows first and then columns, one view at a time: 14 times less
arithmetic for 28 x 37 -> 14 x 14 cells, and no second copy of a scene. A pose has no grid and stays.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import TokenGrid, overlap_matrix
from pipeline.teachers.base import TeacherFeatures


def resample_features(features: TeacherFeatures, target: TokenGrid) -> TeacherFeatures:
    """Tokens, confidence and depth of ``features`` averaged into the cells of ``target``."""
    source = features.grid
    rows = overlap_matrix(target.row_edges(), source.row_edges()).astype(np.float32)
    cols = overlap_matrix(target.col_edges(), source.col_edges()).astype(np.float32)

    def averaged(maps: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if maps is None else _average(maps[..., None], rows, cols)[..., 0]

    return dataclasses.replace(
        features,
        tokens=_average(features.tokens, rows, cols),
        grid=target,
        confidence=averaged(features.confidence),
        depth=averaged(features.depth),
    )


def _average(maps: NDArray[np.float32], rows: NDArray[np.float32], cols: NDArray[np.float32]) -> NDArray[np.float32]:
    """(V,G,K,D) -> (V,G',K',D) with row-stochastic ``rows`` (G',G) and ``cols`` (K',K)."""
    views, height, width, dim = maps.shape
    result = np.empty((views, len(rows), len(cols), dim), dtype=np.float32)
    for view in range(views):
        lines = (rows @ maps[view].reshape(height, width * dim)).reshape(len(rows), width, dim)
        np.matmul(cols, lines, out=result[view])
    return result
