"""Features as colours that can be compared: between views because a scene has one basis, between teachers because every basis
is turned towards the same world axes.

Per teacher and scene: the first three principal components of all its tokens, ordered by variance, scaled to equal variance,
signs fixed by the largest loading. Then the rotation (or reflection) R that brings them closest to the world coordinates of the
cells: orthogonal Procrustes, min |P R - X|, R = U V^T of the singular value decomposition of P^T X (Schönemann 1966). So red,
green and blue stand for what changes most along x, y and z; a teacher without knowledge of places keeps colours that do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

SAMPLE = 4096
"""Tokens of a scene from which the basis is computed, evenly spread: bounds time and memory."""


def principal_basis(tokens: NDArray[np.float32], count: int = 3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (D,) and basis (D,count) of tokens (N,D): projections have unit variance, by falling original variance.

    Directions without variance (fewer than ``count`` dimensions, constant features) are zero columns.
    """
    mean = tokens.mean(0, dtype=np.float64)
    centred = tokens - mean
    width = centred.shape[1]
    first = max(0, width - count)
    values, vectors = eigh(centred.T @ centred / len(centred), subset_by_index=(first, width - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    kept = values > 1e-10 * max(float(values[0]), 1e-30)
    basis = np.zeros((width, count))
    basis[:, : len(values)] = np.where(kept, vectors / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    return mean, basis


def standardised(points: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Standardise points (N,3) to mean 0 and deviation 1 per axis over the valid ones; invalid ones become 0."""
    used = points[valid].astype(np.float64)
    if not len(used):
        return np.zeros(points.shape)
    deviation = used.std(0)
    scaled = (points - used.mean(0)) / np.where(deviation > 1e-9, deviation, 1.0)
    return np.where(valid[:, None], scaled, 0.0)


def alignment(components: NDArray[np.float64], world: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the orthogonal matrix (3,3) that turns components (N,3) closest to standardised world coordinates (N,3).

    The identity when fewer than 4 cells have a known place.
    """
    if int(valid.sum()) < 4:
        return np.eye(3)
    left, _, right = np.linalg.svd(components[valid].T @ world[valid])
    return np.asarray(left @ right)


def to_colors(values: NDArray[np.float64], valid: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Map values (...,3) to [0,1] with one scale per channel for all: 2nd to 98th percentile; invalid ones are grey."""
    flat = values.reshape(-1, 3)
    used = flat if valid is None else flat[valid.reshape(-1)]
    if not len(used):
        return np.full(values.shape, 0.5)
    low, high = np.quantile(used, [0.02, 0.98], axis=0)
    constant = high - low <= 1e-9
    colors = np.clip((values - low) / np.where(constant, 1.0, high - low), 0.0, 1.0)
    colors = np.where(constant, 0.5, colors)
    return colors if valid is None else np.where(valid[..., None], colors, 0.5)
