"""Token grids and their resampling in image coordinates.

A teacher's and a student's tokens look at the same picture through different windows: different patch counts, crops and
aspect ratios (3DRS: the student sees 378 of 384 pixels in 14x14 cells, VGGT all of the image in 28x37 patches, which
shifts cells by up to 0.21 cell when both are treated as plain 14x14 arrays). Here every grid says which window of the
original image it covers, and resampling averages by exact overlapped area.

Source of the offset figure: reading of the public 3DRS code (student cell centre (i+.5)*27/384, teacher about (i+.5)/14).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Resampling = Literal["area", "adaptive"]


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """``rows`` x ``cols`` equal cells over ``window`` = (x0, y0, x1, y1) of the image, normalised to [0, 1]."""

    rows: int
    cols: int
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def count(self) -> int:
        return self.rows * self.cols

    def row_edges(self) -> NDArray[np.float64]:
        """Cell borders along y, (rows+1,), normalised image coordinates."""
        return np.linspace(self.window[1], self.window[3], self.rows + 1)

    def col_edges(self) -> NDArray[np.float64]:
        """Cell borders along x, (cols+1,), normalised image coordinates."""
        return np.linspace(self.window[0], self.window[2], self.cols + 1)


def overlap_matrix(target_edges: NDArray[np.float64], source_edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row-stochastic (target, source) matrix of overlapped lengths.

    A target cell that no source cell overlaps (outside the source's window) takes the nearest source cell.
    """
    lo = np.maximum(target_edges[:-1, None], source_edges[None, :-1])
    hi = np.minimum(target_edges[1:, None], source_edges[None, 1:])
    weights = np.clip(hi - lo, 0.0, None)
    empty = weights.sum(1) <= 1e-12
    if empty.any():
        target_mid = (target_edges[:-1] + target_edges[1:]) / 2
        source_mid = (source_edges[:-1] + source_edges[1:]) / 2
        nearest = np.abs(target_mid[empty, None] - source_mid[None]).argmin(1)
        weights[np.flatnonzero(empty), nearest] = 1.0
    return weights / weights.sum(1, keepdims=True)


def adaptive_matrix(target: int, source: int) -> NDArray[np.float64]:
    """The windows of adaptive average pooling as a (target, source) matrix: [floor(i*s/t), ceil((i+1)*s/t))."""
    weights = np.zeros((target, source))
    for i in range(target):
        lo, hi = (i * source) // target, -((-(i + 1) * source) // target)
        weights[i, lo:hi] = 1.0 / (hi - lo)
    return weights


def resample_tokens(tokens: torch.Tensor, source: TokenGrid, target: TokenGrid, method: Resampling = "area") -> torch.Tensor:
    """Average ``tokens`` (..., G, K, D) of ``source`` into the cells of ``target`` -> (..., G', K', D), float32.

    ``area`` uses both windows (exact overlap); ``adaptive`` ignores them and equals ``adaptive_avg_pool2d``, the
    reference's rule. Average first, normalise after: the caller normalises.
    """
    import torch

    if tuple(tokens.shape[-3:-1]) != (source.rows, source.cols):
        raise ValueError(f"tokens {tuple(tokens.shape)} are not on a {source.rows}x{source.cols} grid")
    if method == "adaptive":
        over_rows, over_cols = adaptive_matrix(target.rows, source.rows), adaptive_matrix(target.cols, source.cols)
    else:
        over_rows = overlap_matrix(target.row_edges(), source.row_edges())
        over_cols = overlap_matrix(target.col_edges(), source.col_edges())
    rows = torch.as_tensor(over_rows, dtype=torch.float32, device=tokens.device)
    cols = torch.as_tensor(over_cols, dtype=torch.float32, device=tokens.device)
    return torch.einsum("gh,kw,...hwd->...gkd", rows, cols, tokens.float())
