"""What the table says about the paper's two questions, as numbers (markdown.py and the report put them into words).

1. *Does a teacher lift the scores over `none`?* The mean over benchmarks and backbones of the paired differences, with two
   intervals: over scenes (what other test scenes would change; same resamples on both sides) and over runs (what other
   trainings would change; Student's t over the backbone x seed pairs). A verdict needs both, because either alone ignores
   one of the two noises.
2. *Does correspondence go with performance?* Correlation over the runs of a backbone (teacher x seed), pooled over
   backbones after each one's mean is taken off, and within single runs over scenes (derived rows). Intervals over runs are
   Fisher's z (for Spearman with the variance of Bonett and Wright, 2000); runs of one teacher are not independent, so they are
   optimistic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.stats import correlations, interval
from pipeline.tables.schema import DERIVED, Row

BASELINE = "none"
CONTROLS = ("shuffled", "random")
"""Teachers whose names start so carry no knowledge of the scene: what they lift is not owed to 3D features."""
LIFTS, LOWERS, NO_EVIDENCE = "lifts", "lowers", "no evidence"
BACKBONES, TEACHERS = "within backbones", "within backbone and teacher"
Point = tuple[str, str, int, float, float]
"""(backbone, teacher, seed, correspondence, mean headline score)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with an interval (None where it cannot be had) over ``n`` units."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies on one side of zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True, slots=True)
class Lift:
    """Question 1 for one teacher. ``over_scenes``/``over_runs`` are the same mean with its two intervals.

    ``by_benchmark``: benchmark -> mean over backbones, interval over scenes. ``up``/``down``: backbone x benchmark cells
    whose own interval excludes zero, of ``cells``.
    """

    dataset: str
    recipe: str
    teacher: str
    against: str
    over_scenes: Estimate
    over_runs: Estimate
    by_benchmark: dict[str, Estimate]
    up: int
    down: int
    cells: int

    @property
    def verdict(self) -> str:
        """lifts or lowers when both intervals say so, else no evidence."""
        if self.over_scenes.sign == self.over_runs.sign != 0:
            return LIFTS if self.over_runs.sign > 0 else LOWERS
        return NO_EVIDENCE


@dataclass(frozen=True, slots=True)
class Association:
    """Question 2 over runs. ``backbone``: whose runs, empty for all of them; ``within``: what was centred before pooling.

    ``points``: (backbone, teacher, seed, correspondence, performance), centred where ``within`` says so.
    """

    dataset: str
    recipe: str
    backbone: str
    within: str
    spearman: Estimate
    pearson: Estimate
    points: tuple[Point, ...]


def unique(rows: Iterable[Row], column: str) -> list[str]:
    """Values of a column in order of appearance, without the empty one."""
    return [value for value in dict.fromkeys(row[column] for row in rows) if value != ""]


def is_control(teacher: str) -> bool:
    """True for teachers that know nothing of the scene."""
    return teacher.startswith(CONTROLS)


def headline_rows(rows: Iterable[Row], dataset: str, recipe: str) -> list[Row]:
    """Headline rows of one dataset and recipe."""
    return [row for row in rows if row["headline"] and row["dataset"] == dataset and row["recipe"] == recipe]


def lifts(rows: Sequence[Row], dataset: str, recipe: str, level: float) -> list[Lift]:
    """Question 1 for every teacher, against `none` and, for teachers that are no controls, against each control."""
    chosen = [row for row in headline_rows(rows, dataset, recipe) if row["task"] != "representation"]
    teachers = [teacher for teacher in unique(chosen, "teacher") if teacher != BASELINE]
    found = [_lift(chosen, dataset, recipe, teacher, BASELINE, level) for teacher in teachers]
    for teacher in teachers:
        for control in teachers:
            if is_control(control) and not is_control(teacher):
                found.append(_lift(chosen, dataset, recipe, teacher, control, level))
    return [lift for lift in found if lift is not None]


def _differences(row: Row, other: Row | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(per seed, per resample) of a row's difference to `none`, or to another teacher's row (both are paired to none)."""
    seeds, resamples = np.asarray(row["diff_seed_values"]), np.asarray(row["diff_replicates"])
    if other is None:
        return seeds, resamples
    return seeds - np.asarray(other["diff_seed_values"]), resamples - np.asarray(other["diff_replicates"])


def _lift(rows: Sequence[Row], dataset: str, recipe: str, teacher: str, against: str, level: float) -> Lift | None:
    others = {(row["backbone"], row["benchmark"]): row for row in rows if row["teacher"] == against != BASELINE}
    pairs: dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for row in rows:
        if row["teacher"] == teacher and row["diff_to_none"] is not None:
            key = row["backbone"], row["benchmark"]
            pairs[key] = _differences(row, others.get(key))
    if not pairs:
        return None
    by_run: list[float] = []
    for backbone in dict.fromkeys(backbone for backbone, _ in pairs):
        by_run += np.mean([seeds for (b, _), (seeds, _) in pairs.items() if b == backbone], axis=0).tolist()
    by_benchmark = {
        name: _over_scenes([pair for (_, b), pair in pairs.items() if b == name], level)
        for name in dict.fromkeys(benchmark for _, benchmark in pairs)
    }
    signs = [_over_scenes([pair], level).sign for pair in pairs.values()]
    return Lift(
        dataset=dataset,
        recipe=recipe,
        teacher=teacher,
        against=against,
        over_scenes=_over_scenes(list(pairs.values()), level),
        over_runs=_over_runs(by_run, level),
        by_benchmark=by_benchmark,
        up=signs.count(1),
        down=signs.count(-1),
        cells=len(pairs),
    )


def _over_scenes(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], level: float) -> Estimate:
    """Mean difference; interval of the resample-by-resample mean."""
    mean = float(np.mean([seeds.mean() for seeds, _ in pairs]))
    resamples = [spread for _, spread in pairs if len(spread)]
    if len(resamples) < len(pairs):
        return Estimate(mean, None, None, len(pairs))
    low, high = interval(np.mean(resamples, axis=0), level)
    return Estimate(mean, low, high, len(pairs))


def _over_runs(values: Sequence[float], level: float) -> Estimate:
    """Mean with Student's t interval; no interval below two runs."""
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Estimate(mean, None, None, count)
    half = float(t.ppf((1 + level) / 2, count - 1)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


def run_points(rows: Sequence[Row], dataset: str, recipe: str) -> list[Point]:
    """The point of every run: its correspondence and its mean headline score over the other benchmarks."""
    chosen = headline_rows(rows, dataset, recipe)
    points = []
    for backbone in unique(chosen, "backbone"):
        for teacher in unique(chosen, "teacher"):
            mine = [row for row in chosen if (row["backbone"], row["teacher"]) == (backbone, teacher)]
            correspondence = [row for row in mine if row["task"] == "representation"]
            scores = [row["seed_values"] for row in mine if row["task"] != "representation"]
            if correspondence and scores:
                seeds, levels = correspondence[0]["seeds"], correspondence[0]["seed_values"]
                performance = np.mean(scores, axis=0)
                points += [(backbone, teacher, *run) for run in zip(seeds, levels, performance.tolist(), strict=True)]
    return points


def associations(rows: Sequence[Row], dataset: str, recipe: str, level: float) -> list[Association]:
    """Question 2 over runs: each backbone; all pooled within backbones; all pooled within backbone and teacher.

    The last one asks whether runs of the same teacher that differ by seed alone show it too: without that, whatever a
    teacher does to both numbers is enough for a correlation. It needs two seeds.
    """
    points = run_points(rows, dataset, recipe)
    backbones = list(dict.fromkeys(point[0] for point in points))
    found = [_association([p for p in points if p[0] == b], (dataset, recipe, b, ""), 1, level) for b in backbones]
    if len(backbones) > 1:
        found.append(_association(centred(points, 1), (dataset, recipe, "", BACKBONES), len(backbones), level))
    groups = len({point[:2] for point in points})
    if len(points) >= 2 * groups > 2:
        found.append(_association(centred(points, 2), (dataset, recipe, "", TEACHERS), groups, level))
    return found


def main_association(found: Sequence[Association]) -> Association | None:
    """The one that answers question 2: pooled within backbones, or the only backbone's."""
    chosen = [association for association in found if association.points and association.within != TEACHERS]
    return chosen[-1] if chosen else None


def centred(points: Sequence[Point], parts: int) -> list[Point]:
    """Points with the means of their group taken off; a group shares the first ``parts`` of (backbone, teacher)."""
    moved: list[Point] = []
    for group in dict.fromkeys(point[:parts] for point in points):
        mine = [point for point in points if point[:parts] == group]
        x, y = (float(np.mean([point[i] for point in mine])) for i in (3, 4))
        # rounded, so that what was equal stays equal: ranks would order the rounding errors
        moved += [(*point[:3], round(point[3] - x, 9), round(point[4] - y, 9)) for point in mine]
    return moved


def _association(points: Sequence[Point], scope: tuple[str, str, str, str], groups: int, level: float) -> Association:
    x, y = np.asarray([point[3] for point in points]), np.asarray([point[4] for point in points])
    spearman = _fisher(float(correlations(x, y, "spearman")), len(points), groups, level, ranks=True)
    pearson = _fisher(float(correlations(x, y, "pearson")), len(points), groups, level, ranks=False)
    return Association(*scope, spearman, pearson, tuple(points))


def _fisher(value: float, count: int, groups: int, level: float, ranks: bool) -> Estimate:
    """Interval of a correlation over ``count`` points of ``groups`` centred groups; none below four degrees of freedom."""
    from scipy.stats import norm

    freedom = count - (groups - 1) - 3
    if not math.isfinite(value) or freedom < 1:
        return Estimate(value, None, None, count)
    error = math.sqrt((1 + value**2 / 2 if ranks else 1.0) / freedom)
    half = float(norm.ppf((1 + level) / 2)) * error
    centre = math.atanh(max(-0.999999, min(0.999999, value)))
    return Estimate(value, math.tanh(centre - half), math.tanh(centre + half), count)


def scene_correlations(rows: Sequence[Row], dataset: str, recipe: str) -> list[Row]:
    """Derived rows: correlation over scenes within runs, per backbone, teacher and benchmark."""
    return [
        row
        for row in rows
        if row["kind"] == DERIVED and row["subset"] == "all" and (row["dataset"], row["recipe"]) == (dataset, recipe)
    ]
