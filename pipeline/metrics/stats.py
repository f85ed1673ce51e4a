"""A score on resampled scenes: the bootstrap behind every interval, paired between runs.

Questions about one scene are not independent, so whole scenes are resampled with replacement. The resamples depend on the
sorted scene ids and a seed and on nothing else: every run that is scored on the same scenes gets the same ones, and the
replicates of two runs may be subtracted one by one (paired bootstrap). Means over samples become one matrix product, BLEU
and METEOR are recombined from sums of their sufficient statistics, and CIDEr keeps the document frequencies of the full
set (resampling scenes would otherwise change the weight of every n-gram as well).

Replicates show the variation between test scenes. Variation between training seeds is added where there are several runs:
tables/uncertainty.py computes the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.provenance import seed_for

Correlation = Literal["pearson", "spearman"]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The number of resamples of scenes, and their seed."""

    replicates: int = 1000
    seed: int = 0


def scene_weights(scene_ids: Sequence[str], replicates: int, seed: int) -> NDArray[np.float64]:
    """Count how often each scene is drawn in each resample: (R, S), columns in the order of ``sorted(set(scene_ids))``.

    Every row sums to S. The draw depends on the set of ids, ``replicates`` and ``seed`` only.
    """
    scenes = sorted(set(scene_ids))
    if not scenes or replicates < 1:
        return np.zeros((max(replicates, 0), len(scenes)))
    generator = np.random.default_rng(seed_for("scene bootstrap", seed, replicates, *scenes))
    drawn = generator.integers(0, len(scenes), size=(replicates, len(scenes)))
    flat = drawn + len(scenes) * np.arange(replicates)[:, None]
    counts = np.bincount(flat.ravel(), minlength=replicates * len(scenes))
    return counts.reshape(replicates, len(scenes)).astype(np.float64)


def scene_sums(values: ArrayLike, scene_index: NDArray[np.int64], scenes: int) -> NDArray[np.float64]:
    """Sum rows of ``values`` (n,) or (n,K) per scene -> (S,K)."""
    table = np.asarray(values, dtype=np.float64)
    table = table.reshape(len(scene_index), -1)
    columns = [np.bincount(scene_index, weights=column, minlength=scenes) for column in table.T]
    return np.stack(columns, axis=1) if columns else np.zeros((scenes, 0))


def mean_replicates(values: ArrayLike, scene_index: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of sample ``values`` (n,) on every resample (R,); NaN where a resample holds none of these samples."""
    table = np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(scene_index))])
    totals = weights @ scene_sums(table, scene_index, weights.shape[1])
    return np.divide(totals[:, 0], totals[:, 1], out=np.full(len(totals), np.nan), where=totals[:, 1] > 0)


def corpus_replicates(
    statistics: ArrayLike,
    scene_index: NDArray[np.int64],
    weights: NDArray[np.float64],
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Return a corpus metric on every resample (R,): ``combine`` maps sums of ``statistics`` (R,K) to scores (R,)."""
    totals = weights @ scene_sums(statistics, scene_index, weights.shape[1])
    held = weights @ np.bincount(scene_index, minlength=weights.shape[1]) > 0
    result = np.full(len(totals), np.nan)
    if held.any():
        result[held] = combine(totals[held])
    return result


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def correlations(x: ArrayLike, y: ArrayLike, kind: Correlation = "spearman") -> NDArray[np.float64]:
    """Return the correlation along the last axis of (..., K) arrays; ties get mean ranks; NaN where a side does not vary."""
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if kind == "spearman":
        left, right = _ranks(left), _ranks(right)
    left = left - left.mean(axis=-1, keepdims=True)
    right = right - right.mean(axis=-1, keepdims=True)
    norm = np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
    return np.divide((left * right).sum(-1), norm, out=np.full(norm.shape, np.nan), where=norm > 1e-15)
