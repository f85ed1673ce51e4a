"""Grounding metrics on axis-aligned boxes [cx,cy,cz,dx,dy,dz] in metres: IoU, Acc@t (ScanRefer), F1@t (Multi3DRefer).

IoU = V_int / (V_a + V_b - V_int + 1e-8) as in the official scripts; a threshold is met when IoU >= t, so two boxes whose
exact IoU *equals* t just miss it (the 1e-8), officially too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

THRESHOLDS = (0.25, 0.5)
_EPSILON = 1e-8
_FAR_M = 1e6
"""Centres and sizes beyond this (metres) are no places; their volumes would overflow."""


def as_boxes(boxes: ArrayLike | Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Convert boxes, empty or (N,6), to float64 (N,6)."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 6)


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return the IoU of every box of ``a`` (N,6) with every box of ``b`` (M,6) -> (N,M)."""
    left, right = as_boxes(a), as_boxes(b)
    low = np.maximum((left[:, :3] - left[:, 3:] / 2)[:, None], (right[:, :3] - right[:, 3:] / 2)[None])
    high = np.minimum((left[:, :3] + left[:, 3:] / 2)[:, None], (right[:, :3] + right[:, 3:] / 2)[None])
    overlap = np.clip(high - low, 0.0, None).prod(-1)
    volume_a, volume_b = left[:, 3:].prod(-1), right[:, 3:].prod(-1)
    return np.asarray(overlap / (volume_a[:, None] + volume_b[None] - overlap + _EPSILON), dtype=np.float64)


def paired_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return the IoU of two lists of boxes (N,6) one by one -> (N,), the same numbers as ``iou`` gives."""
    left, right = as_boxes(a), as_boxes(b)
    low = np.maximum(left[:, :3] - left[:, 3:] / 2, right[:, :3] - right[:, 3:] / 2)
    high = np.minimum(left[:, :3] + left[:, 3:] / 2, right[:, :3] + right[:, 3:] / 2)
    overlap = np.clip(high - low, 0.0, None).prod(-1)
    volumes = left[:, 3:].prod(-1) + right[:, 3:].prod(-1)
    return np.asarray(overlap / (volumes - overlap + _EPSILON), dtype=np.float64)


def usable_boxes(boxes: ArrayLike) -> NDArray[np.bool_]:
    """Return which boxes (N,6) can be compared (N,): finite, within 1,000 km, no negative size."""
    table = as_boxes(boxes)
    within = (np.abs(table) <= _FAR_M).all(axis=1)  # false for NaN and infinities too
    return np.asarray(within & (table[:, 3:] >= 0).all(axis=1), dtype=np.bool_)


def best_proposal(box: ArrayLike, proposals: ArrayLike, threshold: float = 0.5) -> tuple[int, float] | None:
    """Return index and IoU of the proposal closest to ``box`` (6,) by IoU, the first of equals; None below ``threshold``."""
    values = iou(as_boxes(box), proposals)[0]
    if not len(values) or values.max() < threshold:
        return None
    index = int(values.argmax())
    return index, float(values[index])


def usable_choice(
    boxes: NDArray[np.float64] | None, probabilities: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return boxes (N,6) and probabilities (N+1,), zero target last, when both are finite and fit each other; else None.

    A negative probability or size is no usable choice either.
    """
    if probabilities is None or boxes is None:
        return None
    try:
        candidates, values = as_boxes(boxes), np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if values.shape != (len(candidates) + 1,) or not (np.isfinite(values).all() and (values >= 0).all()):
        return None
    return (candidates, values) if usable_boxes(candidates).all() else None


def choose_cumulative(probabilities: ArrayLike, cumulative_probability: float) -> list[int]:
    """Apply Multi3DRefer's rule to probabilities (N+1,), zero target last -> chosen candidates, most probable first.

    Nothing when the zero target is the most probable; else candidates in falling order until their sum reaches
    ``cumulative_probability`` (the zero target is left out, nothing is renormalised). Ties: the earlier candidate.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if int(values.argmax()) == len(values) - 1:
        return []
    order = np.argsort(-values[:-1], kind="stable")
    enough = np.flatnonzero(np.cumsum(values[order]) >= cumulative_probability)
    count = int(enough[0]) + 1 if len(enough) else len(order)
    return [int(i) for i in order[:count]]


def _matched(overlaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of the pairs in the one-to-one matching of (P,G) with the largest total.

    Square, padded with zeros, as the official matching: equal totals are then broken in the same way.
    """
    from scipy.optimize import linear_sum_assignment

    size = max(overlaps.shape)
    square = np.zeros((size, size))
    square[: overlaps.shape[0], : overlaps.shape[1]] = overlaps
    return np.asarray(square[linear_sum_assignment(-square)])


def queries_f1(
    predicted: Sequence[Sequence[Sequence[float]]],
    targets: Sequence[NDArray[np.float64]],
    thresholds: Sequence[float] = THRESHOLDS,
) -> NDArray[np.float64]:
    """Return F1 of queries per threshold (Q,T): 2 tp / (P + G) after the one-to-one matching with the largest total IoU.

    Both sides empty: 1; one side empty: 0. All IoU are taken in one pass, and a matching is only solved where both sides
    have several boxes.
    """
    said, true = np.array([len(p) for p in predicted]), np.array([len(t) for t in targets])
    pairs = said * true
    found = np.zeros((len(pairs), len(thresholds)))
    found[(said == 0) & (true == 0)] = 1.0
    asked = np.flatnonzero(pairs)
    if not len(asked):
        return found
    first = np.concatenate([np.repeat(as_boxes(predicted[q]), true[q], axis=0) for q in asked.tolist()])
    second = np.concatenate([np.tile(targets[q], (said[q], 1)) for q in asked.tolist()])
    values = paired_iou(first, second)
    starts = np.concatenate([[0], np.cumsum(pairs[asked])])
    best = np.maximum.reduceat(values, starts[:-1])
    single = np.minimum(said, true)[asked] == 1
    for column, threshold in enumerate(thresholds):
        # One box on a side: the matching with the largest total is its best partner.
        found[asked[single], column] = 2.0 * (best[single] >= threshold) / (said + true)[asked[single]]
    for place in np.flatnonzero(~single):
        q = asked[place]
        matched = _matched(values[starts[place] : starts[place + 1]].reshape(said[q], true[q]))
        found[q] = [2.0 * float((matched >= t).sum()) / (said[q] + true[q]) for t in thresholds]
    return found


def chance_f1(overlaps: NDArray[np.float64], thresholds: Sequence[float] = THRESHOLDS) -> tuple[float, ...]:
    """Return the expected F1 per threshold of a random choice of a candidate or "no object", from IoU with targets (N,G)."""
    candidates, targets = overlaps.shape
    if not targets:
        return tuple(1.0 / (candidates + 1) for _ in thresholds)
    best = overlaps.max(axis=1, initial=0.0)
    return tuple(2.0 * int((best >= t).sum()) / (1 + targets) / (candidates + 1) for t in thresholds)
