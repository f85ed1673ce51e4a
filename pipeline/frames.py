"""Which views of a scene are used: ONE function, called once per dataset, whose result is the manifest's ordered frame list.

``uniform``       int(linspace(0, F-1, N)), the rule of the published 3DRS runs; all frames when there are fewer than N.
``max_coverage``  greedy choice of the frames that add most unseen items (voxels, objects), as in Video-3D LLM, but with seeded
                  ties, so that two runs choose the same frames; the result is in frame order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Strategy = Literal["uniform", "max_coverage"]


def choose_frames(
    available: int,
    count: int,
    *,
    strategy: Strategy = "uniform",
    coverage: Sequence[NDArray[np.int64]] | None = None,
    times: int = 1,
    stop_share: float = 1.0,
    seed: int = 0,
) -> tuple[int, ...]:
    """Strictly increasing indices of at most ``count`` of ``available`` frames.

    ``coverage`` (max_coverage only): per frame the ids of the items it sees (negative ids are ignored); an item counts up to
    ``times`` times, so 2 asks for overlap. The choice ends early when ``stop_share`` of all items that any frame sees
    is covered; with 1.0 it never ends early, and frames that add nothing are filled in by the seeded order.
    Raises ValueError for numbers below 1, or coverage that does not belong to the frames.
    """
    if available < 1 or count < 1 or times < 1 or not 0 < stop_share <= 1:
        raise ValueError(f"cannot choose {count} of {available} frames (times {times}, stop_share {stop_share})")
    if strategy == "uniform":
        steps = np.linspace(0, available - 1, min(count, available)).astype(int)
        return tuple(int(i) for i in steps)
    if coverage is None or len(coverage) != available:
        raise ValueError(f"max_coverage of {available} frames needs as many item lists")
    return _greedy(coverage, min(count, available), times, stop_share, np.random.default_rng(seed))


def _greedy(
    coverage: Sequence[NDArray[np.int64]], count: int, times: int, stop_share: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """Greedy maximum coverage; ties go to the frame that comes first in a random order."""
    flat = np.concatenate([np.asarray(items, dtype=np.int64).ravel() for items in coverage])
    owner = np.repeat(np.arange(len(coverage)), [np.size(items) for items in coverage])
    names, column = np.unique(flat[flat >= 0], return_inverse=True)
    sees = np.zeros((len(coverage), len(names)), dtype=bool)
    sees[owner[flat >= 0], column] = True
    order = rng.permutation(len(coverage))
    left, seen = np.full(len(names), times), np.zeros(len(names), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < count:
        gains = sees[order] @ (left > 0).astype(np.int64)
        gains[np.isin(order, chosen)] = -1
        best = int(order[int(gains.argmax())])
        chosen.append(best)
        left = left - sees[best]
        seen |= sees[best]
        if stop_share < 1 and seen.sum() >= stop_share * len(names):
            break
    return tuple(sorted(chosen))
