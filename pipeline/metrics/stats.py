"""Uncertainty of a score: bootstrap over scenes, paired between runs.

Questions about one scene are not independent, so whole scenes are resampled with replacement. The resamples depend on the
sorted scene ids and a seed and on nothing else: every run that is scored on the same scenes gets the same ones, and the
replicates of two runs may be subtracted one by one (paired bootstrap). Means over samples become one matrix product, BLEU
and METEOR are recombined from sums of their sufficient statistics, and CIDEr keeps the document frequencies of the full
set (resampling scenes would otherwise change the weight of every n-gram as well).

An interval covers the choice of test scenes, not the choice of training seeds; averaging replicates over seeds first
(``seed_mean``) narrows nothing but the noise of single seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.provenance import seed_for

Correlation = Literal["pearson", "spearman"]


class Interval(NamedTuple):
    """A percentile interval; both ends NaN when there is nothing to take it from."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How many resamples of scenes, and the seed they follow from."""

    replicates: int = 1000
    seed: int = 0


def scene_weights(scene_ids: Sequence[str], replicates: int, seed: int) -> NDArray[np.float64]:
    """How often each scene is drawn in each resample: (R, S), columns in the order of ``sorted(set(scene_ids))``.

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
    """Mean of sample ``values`` (n,) on every resample (R,); NaN where a resample holds none of these samples."""
    table = np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(scene_index))])
    totals = weights @ scene_sums(table, scene_index, weights.shape[1])
    return np.divide(totals[:, 0], totals[:, 1], out=np.full(len(totals), np.nan), where=totals[:, 1] > 0)


def corpus_replicates(
    statistics: ArrayLike,
    scene_index: NDArray[np.int64],
    weights: NDArray[np.float64],
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """A corpus metric on every resample (R,): ``combine`` maps sums of ``statistics`` (R,K) to scores (R,)."""
    totals = weights @ scene_sums(statistics, scene_index, weights.shape[1])
    held = weights @ np.bincount(scene_index, minlength=weights.shape[1]) > 0
    result = np.full(len(totals), np.nan)
    if held.any():
        result[held] = combine(totals[held])
    return result


def interval(replicates: ArrayLike, level: float = 0.95) -> Interval:
    """Percentile interval of replicates (R,); NaN replicates (empty resamples) are left out."""
    values = np.asarray(replicates, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def seed_mean(replicates: ArrayLike) -> NDArray[np.float64]:
    """Replicates (seeds,R) or (R,) -> (R,): the mean over training seeds on each resample of scenes."""
    table = np.atleast_2d(np.asarray(replicates, dtype=np.float64))
    return np.asarray(table.mean(axis=0), dtype=np.float64)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the difference a - b of two runs or groups of seeds; each (R,) or (seeds,R) on the same resamples.

    Raises ValueError when the two were not made with the same number of resamples.
    """
    first, second = seed_mean(a), seed_mean(b)
    if first.shape != second.shape:
        raise ValueError(f"replicates of different resamples cannot be paired: {first.shape} and {second.shape}")
    return interval(first - second, level)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def correlations(x: ArrayLike, y: ArrayLike, kind: Correlation = "spearman") -> NDArray[np.float64]:
    """Correlation along the last axis of (..., K) arrays; ties get mean ranks; NaN where a side does not vary."""
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if kind == "spearman":
        left, right = _ranks(left), _ranks(right)
    left = left - left.mean(axis=-1, keepdims=True)
    right = right - right.mean(axis=-1, keepdims=True)
    norm = np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
    return np.divide((left * right).sum(-1), norm, out=np.full(norm.shape, np.nan), where=norm > 1e-15)


class CorrelationResult(NamedTuple):
    """A correlation over ``n`` runs with its interval over resampled scenes."""

    value: float
    low: float
    high: float
    n: int


def correlation(
    x: ArrayLike,
    y: ArrayLike,
    x_replicates: ArrayLike,
    y_replicates: ArrayLike,
    kind: Correlation = "spearman",
    level: float = 0.95,
) -> CorrelationResult:
    """Does one score go with another over K runs? E.g. x correspondence, y accuracy, both (K,), replicates (K,R).

    The interval is over scenes; K runs that differ in little make it wide. NaN with fewer than three runs.
    """
    values_x, values_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(values_x) < 3:
        return CorrelationResult(float("nan"), float("nan"), float("nan"), len(values_x))
    spread = correlations(np.asarray(x_replicates).T, np.asarray(y_replicates).T, kind)
    low, high = interval(spread, level)
    return CorrelationResult(float(correlations(values_x, values_y, kind)), low, high, len(values_x))
