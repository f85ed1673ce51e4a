"""Token grids and their resampling in image coordinates.

A teacher's and a student's tokens look at the same picture through different windows: different patch counts, crops and
aspect ratios (3DRS: the student sees 378 of 384 pixels in 14x14 cells, VGGT all of the image in 28x37 patches, which
shifts cells by up to 0.21 cell when both are treated as plain 14x14 arrays). Here every grid says which window of the
original image it covers, and resampling averages by exact overlapped area.

A teacher may see less than the image (VGGT and FLARE crop portraits) or more (VGGT pads with white). Only what lies in the
image and in the teacher's window is averaged. A cell that the teacher saw less than half of is unseen (``seen_cells``) and has
weight 0 in the loss; where it saw nothing there are zeros, never a neighbour's numbers.

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
Window = tuple[float, float, float, float]
"""(x0, y0, x1, y1) of the image, normalised: the whole image is (0, 0, 1, 1)."""

IMAGE: Window = (0.0, 0.0, 1.0, 1.0)
LEAST_SEEN = 0.5
"""Share of a cell's area that a teacher must have seen. The mean over what it saw is then off by at most a quarter of a cell,
about the 0.21 that the reference accepts everywhere; all or nothing, so that crops of a pixel or two (FLARE keeps 512 of a
ScanNet frame's 514 columns) leave every weight at 1."""
LARGEST_SHIFT = 0.25
"""Largest distance of two windows' borders, in cells of the target, at which ``adaptive`` may ignore them (reference: 0.22)."""


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """``rows`` x ``cols`` equal cells over ``window`` = (x0, y0, x1, y1) of the image, normalised to [0, 1]."""

    rows: int
    cols: int
    window: Window = IMAGE

    @property
    def count(self) -> int:
        return self.rows * self.cols

    def row_edges(self) -> NDArray[np.float64]:
        """Cell borders along y, (rows+1,), normalised image coordinates."""
        return np.linspace(self.window[1], self.window[3], self.rows + 1)

    def col_edges(self) -> NDArray[np.float64]:
        """Cell borders along x, (cols+1,), normalised image coordinates."""
        return np.linspace(self.window[0], self.window[2], self.cols + 1)


def common_window(*windows: Window) -> Window:
    """Return what windows have in common; x1 <= x0 or y1 <= y0 when there is nothing."""
    x0, y0, x1, y1 = zip(*windows, strict=True)
    return max(x0), max(y0), min(x1), min(y1)


def seen_cells(target: TokenGrid, seen: Window) -> NDArray[np.bool_]:
    """Return which cells (G,K) of ``target`` lie in the window ``seen`` of the image with at least half of their area."""
    x0, y0, x1, y1 = common_window(seen, IMAGE)
    share = np.outer(_inside(target.row_edges(), y0, y1), _inside(target.col_edges(), x0, x1))
    return share >= LEAST_SEEN - 1e-9


def _inside(edges: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Share of each cell between two edges that lies between ``low`` and ``high``."""
    return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0.0, None) / np.diff(edges)


def area_matrices(
    source: TokenGrid, target: TokenGrid, seen: Window | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of the source's rows (G',G) and columns (K',K) in the target's: overlap inside the image and inside ``seen``.

    ``seen`` is what the source's numbers were made of, where that is less than its window (features stored on a student's
    grid).
    """
    x0, y0, x1, y1 = common_window(IMAGE, seen or IMAGE)
    rows = overlap_matrix(target.row_edges(), np.clip(source.row_edges(), y0, max(y0, y1)))
    return rows, overlap_matrix(target.col_edges(), np.clip(source.col_edges(), x0, max(x0, x1)))


def overlap_matrix(target_edges: NDArray[np.float64], source_edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(target, source) matrix of overlapped lengths; rows sum to 1, or to 0 where no source cell overlaps the target cell."""
    lo = np.maximum(target_edges[:-1, None], source_edges[None, :-1])
    hi = np.minimum(target_edges[1:, None], source_edges[None, 1:])
    weights = np.clip(hi - lo, 0.0, None)
    total = weights.sum(1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 1e-12)


def adaptive_matrix(target: int, source: int) -> NDArray[np.float64]:
    """The windows of adaptive average pooling as a (target, source) matrix: [floor(i*s/t), ceil((i+1)*s/t))."""
    weights = np.zeros((target, source))
    for i in range(target):
        lo, hi = (i * source) // target, -((-(i + 1) * source) // target)
        weights[i, lo:hi] = 1.0 / (hi - lo)
    return weights


def same_view(source: TokenGrid, target: TokenGrid, seen: Window | None = None) -> bool:
    """True when source (and ``seen`` of it) and target look at the same part of the image, but for a quarter of a cell."""
    cell = ((target.window[2] - target.window[0]) / target.cols, (target.window[3] - target.window[1]) / target.rows)
    parts = (source.window, common_window(source.window, seen or source.window))
    return all(abs(part[i] - target.window[i]) <= LARGEST_SHIFT * cell[i % 2] for part in parts for i in range(4))


def resample_tokens(
    tokens: torch.Tensor, source: TokenGrid, target: TokenGrid, method: Resampling = "area", seen: Window | None = None
) -> torch.Tensor:
    """Average ``tokens`` (..., G, K, D) of ``source`` into the cells of ``target`` -> (..., G', K', D), float32.

    ``area`` uses both windows (exact overlap, see ``area_matrices``). ``adaptive`` equals ``adaptive_avg_pool2d``, the
    reference's rule, which ignores windows; where they differ (``same_view``) that would move every row and average padding
    in, so it is ``area`` there. Average first, normalise after: the caller normalises. Unseen cells: see ``seen_cells``.
    """
    import torch

    if tuple(tokens.shape[-3:-1]) != (source.rows, source.cols):
        raise ValueError(f"tokens {tuple(tokens.shape)} are not on a {source.rows}x{source.cols} grid")
    if method == "adaptive" and same_view(source, target, seen):
        over_rows, over_cols = adaptive_matrix(target.rows, source.rows), adaptive_matrix(target.cols, source.cols)
    else:
        over_rows, over_cols = area_matrices(source, target, seen)
    rows = torch.as_tensor(over_rows, dtype=torch.float32, device=tokens.device)
    cols = torch.as_tensor(over_cols, dtype=torch.float32, device=tokens.device)
    return torch.einsum("gh,kw,...hwd->...gkd", rows, cols, tokens.float())
