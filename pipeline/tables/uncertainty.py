"""How sure a number is: one interval that holds the test scenes and the training seeds.

A score of K runs on S scenes is a mean over two crossed random factors: other scenes and other seeds would both move it, and
their interaction sits in each of the two variances. The variance of the mean is therefore

    V = V_scenes + max(V_seeds - V_both, 0)

(crossed random effects: Owen, "The pigeonhole bootstrap", Ann. Appl. Stat. 1(2), 2007, section 2). ``V_scenes`` is the
bootstrap variance over scenes of the seeds' mean, ``V_both`` that of the single seeds about it, each times S / (S - 1); the
bootstrap gives them for CIDEr, F1 and correlations as well as for means. ``V_seeds`` is the sample variance over seeds / K.

Two seeds say next to nothing about a variance (one degree of freedom: t = 12.7). So it is pooled over the teachers of a cell,
as in an analysis of variance with seeds as blocks, and the teachers' own one is taken where that is larger. The interval is
value +- t(f) sqrt(V), with Satterthwaite's degrees of freedom f (Biometrics Bulletin 2(6), 1946). The resampling of two seeds
would give half of V_seeds, a factor (K - 1) / K. tests/unit/tables/test_interval_coverage.py measures how often the truth is
inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

Reals = NDArray[np.float64]

MIN_SCENES = 10
"""Scenes below which there is no interval: the bootstrap variance of fewer is itself too uncertain (t(9) = 2.3, and skewed
scores of scenes cover less than they should)."""
MIN_SEED_FREEDOM = 2
"""Degrees of freedom of the seeds' variance below which there is no interval: two teachers with two seeds each, or one with
three. With one, the interval covers 88 % instead of 95 % where seeds matter most, and is 12.7 deviations wide where not."""
_NOTHING = 1e-18
"""Variance of rounding errors: where nothing varies there is no interval (one of width 0 would look certain)."""


class Noise(NamedTuple):
    """Variance of one run about the mean of all its possible seeds, and the degrees of freedom behind the estimate.

    ``squares``: independent deviations that it was taken from; ``freedom`` is less where some of them weigh more.
    """

    variance: float
    freedom: float
    squares: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard error of a value, with the degrees of freedom of its t distribution."""

    error: float
    freedom: float

    def interval(self, value: float, level: float) -> tuple[float, float]:
        """Return both ends at this confidence level."""
        half = float(t.ppf((1 + level) / 2, self.freedom)) * self.error
        return value - half, value + half

    def p_value(self, value: float) -> float:
        """Return the two-sided probability of a value at least as far from zero when its expectation is zero."""
        return float(2 * t.sf(abs(value) / self.error, self.freedom))


def seed_noise(scores: ArrayLike) -> Noise:
    """Return the variance over seeds, pooled over teachers; ``scores`` (T,K), teachers by seeds.

    What a seed does to all teachers alike has only K - 1 degrees of freedom, the rest (T - 1)(K - 1): they are joined by
    Satterthwaite's formula. No freedom below two seeds.
    """
    table = np.asarray(scores, dtype=np.float64)
    teachers, seeds = table.shape
    if seeds < 2:
        return Noise(0.0, 0.0, 0)
    common, own = _blocks(table)
    parts = [(common / teachers, seeds - 1), ((teachers - 1) / teachers * own, (teachers - 1) * (seeds - 1))]
    squares = teachers * (seeds - 1)
    return Noise(sum(part for part, _ in parts), _satterthwaite(parts, squares), squares)


def paired_noise(scores: ArrayLike) -> Noise:
    """Return the variance over seeds of a difference between two teachers of the same seed; ``scores`` (T,K).

    What the seed does to both cancels. A single degree of freedom (two teachers, two seeds) is not enough to see how much:
    then it is the sum of the two runs' variances, which is never smaller for runs that share something.
    """
    table = np.asarray(scores, dtype=np.float64)
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    if freedom < MIN_SEED_FREEDOM:
        alone = seed_noise(table)
        return Noise(2 * alone.variance, alone.freedom, alone.squares)
    return Noise(2 * _blocks(table)[1], freedom, freedom)


def _blocks(table: Reals) -> tuple[float, float]:
    """Return mean squares of a (T,K) table: of seeds (their effect on all teachers alike, times T), and of the rest."""
    teachers, seeds = table.shape
    within = table - table.mean(1, keepdims=True)
    common = within.mean(0)
    remains = float(((within - common) ** 2).sum())
    freedom = (teachers - 1) * (seeds - 1)
    return teachers * float((common**2).sum()) / (seeds - 1), remains / freedom if freedom else 0.0


def _satterthwaite(parts: Sequence[tuple[float, float]], otherwise: float) -> float:
    total = sum(part for part, _ in parts)
    below = sum(part**2 / freedom for part, freedom in parts if part)
    return total**2 / below if below else otherwise


def spread(values: Sequence[Reals], replicates: Sequence[Reals], scenes: int, noise: Sequence[Noise]) -> Spread | None:
    """Return how sure the mean over groups (backbones, or only one) of the mean over their seeds is.

    ``values``: per group (K,); ``replicates``: per group (K,R), on the same resamples of ``scenes`` scenes; ``noise``: per
    group, of one run. None where there are too few scenes or seeds, where a value is not finite, or where nothing varies.
    """
    enough = min(map(len, values)) > 1 and sum(found.squares for found in noise) >= MIN_SEED_FREEDOM
    if scenes < MIN_SCENES or not enough:
        return None
    least = min(table.shape[1] for table in replicates)
    drawn = [_finite(table[:, :least]) for table in replicates]
    if not all(np.isfinite(v).all() for v in values) or not all(table.shape[1] > 1 for table in drawn):
        return None
    groups, bessel = len(values), scenes / (scenes - 1)
    seeds = sum(len(v) - 1 for v in values)
    pooled = [(n.variance / len(v) / groups**2, n.freedom) for v, n in zip(values, noise, strict=True)]
    own = sum(float(v.var(ddof=1)) / len(v) for v in values) / groups**2
    by_seeds = max(own, sum(part for part, _ in pooled))
    by_both = sum(_both(table) for table in drawn) * bessel / groups**2
    by_scenes = bessel * float(np.var(_finite(np.stack([table[:, :least].mean(0) for table in replicates])).mean(0)))
    if by_seeds <= by_both:  # seeds differ by no more than their answers to single scenes, which by_scenes holds
        return Spread(math.sqrt(by_scenes), scenes - 1.0) if by_scenes > _NOTHING else None
    total, freedom = max(by_scenes + by_seeds - by_both, by_seeds), _satterthwaite(pooled, seeds)
    if total <= _NOTHING:
        return None
    parts = [(by_scenes, scenes - 1.0), (by_seeds, freedom), (by_both, (scenes - 1.0) * seeds)]
    below = sum(part**2 / f for part, f in parts)
    return Spread(math.sqrt(total), max(total**2 / below, min(freedom, scenes - 1.0)))


def scene_spread(replicates: Reals, scenes: int) -> Spread | None:
    """Return the spread of a number that no seed changes; ``replicates`` (R,)."""
    found = replicates[np.isfinite(replicates)]
    if scenes < MIN_SCENES or len(found) < 2 or float(np.var(found)) <= _NOTHING:
        return None
    return Spread(math.sqrt(scenes / (scenes - 1) * float(np.var(found))), scenes - 1.0)


def _finite(table: Reals) -> Reals:
    """Return the columns (resamples) where all rows are finite."""
    return table[:, np.isfinite(table).all(0)]


def _both(table: Reals) -> float:
    """Return the bootstrap variance of single seeds (K,R) about their mean, for the mean of K seeds."""
    seeds = len(table)
    return float(((table - table.mean(0)).var(1)).sum()) / (seeds - 1) / seeds


def to_fisher(correlations: ArrayLike) -> Reals:
    """Return Fisher's z of correlations, whose distribution has no end at 1; 1 itself becomes 7.25."""
    return np.arctanh(np.clip(np.asarray(correlations, dtype=np.float64), -0.999999, 0.999999))
