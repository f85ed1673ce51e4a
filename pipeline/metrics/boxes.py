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


def as_boxes(boxes: ArrayLike | Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Any empty or (N,6) content as float64 (N,6)."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 6)


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """IoU of every box of ``a`` (N,6) with every box of ``b`` (M,6) -> (N,M)."""
    left, right = as_boxes(a), as_boxes(b)
    low = np.maximum((left[:, :3] - left[:, 3:] / 2)[:, None], (right[:, :3] - right[:, 3:] / 2)[None])
    high = np.minimum((left[:, :3] + left[:, 3:] / 2)[:, None], (right[:, :3] + right[:, 3:] / 2)[None])
    overlap = np.clip(high - low, 0.0, None).prod(-1)
    volume_a, volume_b = left[:, 3:].prod(-1), right[:, 3:].prod(-1)
    return np.asarray(overlap / (volume_a[:, None] + volume_b[None] - overlap + _EPSILON), dtype=np.float64)


def best_proposal(box: ArrayLike, proposals: ArrayLike, threshold: float = 0.5) -> tuple[int, float] | None:
    """Index and IoU of the proposal with the highest IoU with ``box`` (6,), the first of equals; None below ``threshold``."""
    values = iou(as_boxes(box), proposals)[0]
    if not len(values) or values.max() < threshold:
        return None
    index = int(values.argmax())
    return index, float(values[index])


def usable_choice(
    boxes: NDArray[np.float64] | None, probabilities: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Boxes (N,6) and probabilities (N+1,), zero target last, when both are finite and fit each other; else None."""
    if probabilities is None or boxes is None:
        return None
    try:
        candidates, values = as_boxes(boxes), np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if values.shape != (len(candidates) + 1,) or not (np.isfinite(values).all() and (values >= 0).all()):
        return None
    return (candidates, values) if np.isfinite(candidates).all() else None


def choose_cumulative(probabilities: ArrayLike, cumulative_probability: float) -> list[int]:
    """Multi3DRefer's rule on probabilities (N+1,), zero target last -> chosen candidates, most probable first.

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


def query_f1(predicted: ArrayLike, targets: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> tuple[float, ...]:
    """F1 of one query per threshold: 2 tp / (P + G) after the one-to-one matching with the largest total IoU.

    Both sides empty: 1; one side empty: 0.
    """
    from scipy.optimize import linear_sum_assignment

    boxes, truth = as_boxes(predicted), as_boxes(targets)
    if not len(boxes) or not len(truth):
        return tuple(float(len(boxes) == len(truth)) for _ in thresholds)
    # Square, padded with zeros, as the official matching: equal totals are then broken in the same way.
    size = max(len(boxes), len(truth))
    overlaps = np.zeros((size, size))
    overlaps[: len(boxes), : len(truth)] = iou(boxes, truth)
    matched = overlaps[linear_sum_assignment(-overlaps)]
    return tuple(2.0 * float((matched >= t).sum()) / (len(boxes) + len(truth)) for t in thresholds)


def chance_f1(candidates: ArrayLike, targets: ArrayLike, threshold: float) -> float:
    """Expected F1 of a uniformly random choice among N candidates and "no object"."""
    boxes, truth = as_boxes(candidates), as_boxes(targets)
    if not len(truth):
        return 1.0 / (len(boxes) + 1)
    hits = int((iou(boxes, truth).max(axis=1, initial=0.0) >= threshold).sum())
    return 2.0 * hits / (1 + len(truth)) / (len(boxes) + 1)
