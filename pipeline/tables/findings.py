"""What the table says about the paper's two questions, as numbers (markdown.py and the report put them into words).

1. *Does a teacher lift the scores over `none`?* The mean over benchmarks and backbones of the paired differences, with one
   interval that holds other test scenes and other training seeds (uncertainty.py). Backbones and benchmarks are those of the
   study: it says nothing about others.
2. *Does correspondence go with performance?* Correlation over the runs of a backbone (teacher x seed), pooled over
   backbones after each one's mean is taken off, and within single runs over scenes (derived rows). Intervals over runs are
   Fisher's z (for Spearman with the variance of Bonett and Wright, 2000). Runs of one teacher are not independent: n runs count
   as n / (1 + (K - 1) p q), p and q being the intraclass correlations of the two scores (Clifford, Richardson and Hemon,
   "Assessing the significance of the correlation between two spatial processes", Biometrics 45, 1989). A run's score holds
   its scenes' and its seed's noise, so both are in it; it is never narrower than resampling the scenes makes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from pipeline.metrics.stats import Correlation, correlations
from pipeline.tables.schema import DERIVED, Row
from pipeline.tables.uncertainty import MIN_SCENES, Spread, paired_noise, spread, to_fisher

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
        """Return 1 or -1 when the interval lies on one side of zero, else 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True, slots=True)
class Lift:
    """Question 1 for one teacher: the mean difference ``overall``, and per benchmark the mean over backbones.

    ``up``/``down``: backbone x benchmark cells whose own interval excludes zero, of ``cells``.
    """

    dataset: str
    recipe: str
    teacher: str
    against: str
    overall: Estimate
    by_benchmark: dict[str, Estimate]
    up: int
    down: int
    cells: int

    @property
    def verdict(self) -> str:
        """Return "lifts" or "lowers" when the interval excludes zero, else "no evidence"."""
        return {1: LIFTS, -1: LOWERS, 0: NO_EVIDENCE}[self.overall.sign]


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
    """Return the values of a column in order of appearance, without the empty one."""
    return [value for value in dict.fromkeys(row[column] for row in rows) if value != ""]


def is_control(teacher: str) -> bool:
    """True for teachers that know nothing of the scene."""
    return teacher.startswith(CONTROLS)


def headline_rows(rows: Iterable[Row], dataset: str, recipe: str) -> list[Row]:
    """Return the headline rows of one dataset and recipe."""
    return [row for row in rows if row["headline"] and row["dataset"] == dataset and row["recipe"] == recipe]


def lifts(rows: Sequence[Row], dataset: str, recipe: str, level: float) -> list[Lift]:
    """Answer question 1 for every teacher, against `none` and, for teachers that are no controls, against each control."""
    chosen = [row for row in headline_rows(rows, dataset, recipe) if row["task"] != "representation"]
    teachers = [teacher for teacher in unique(chosen, "teacher") if teacher != BASELINE]
    found = [_lift(chosen, dataset, recipe, teacher, BASELINE, level) for teacher in teachers]
    for teacher in teachers:
        for control in teachers:
            if is_control(control) and not is_control(teacher):
                found.append(_lift(chosen, dataset, recipe, teacher, control, level))
    return [lift for lift in found if lift is not None]


def _lift(rows: Sequence[Row], dataset: str, recipe: str, teacher: str, against: str, level: float) -> Lift | None:
    table = {(row["backbone"], row["benchmark"], row["teacher"]): row for row in rows}
    pairs = [key[:2] for key in table if key[2] == teacher and (*key[:2], against) in table]
    if not pairs:
        return None

    def estimate(chosen: Sequence[tuple[str, str]]) -> Estimate:
        return _mean_difference(table, chosen, teacher, against, level)

    signs = [estimate([pair]).sign for pair in pairs]
    return Lift(
        dataset=dataset,
        recipe=recipe,
        teacher=teacher,
        against=against,
        overall=estimate(pairs),
        by_benchmark={name: estimate([p for p in pairs if p[1] == name]) for name in dict.fromkeys(p[1] for p in pairs)},
        up=signs.count(1),
        down=signs.count(-1),
        cells=len(pairs),
    )


def _mean_difference(
    table: Mapping[tuple[str, str, str], Row], pairs: Sequence[tuple[str, str]], teacher: str, against: str, level: float
) -> Estimate:
    """Return the mean of teacher - against over ``pairs``: first over a run's benchmarks, then seeds, then backbones."""
    values, replicates, noise = [], [], []
    for backbone in dict.fromkeys(pair[0] for pair in pairs):
        names = [name for b, name in pairs if b == backbone]
        teachers = [t for t in dict.fromkeys(key[2] for key in table) if all((backbone, name, t) in table for name in names)]
        seeds = table[backbone, names[0], teacher]["seeds"]
        runs = {t: [_of_seeds(table[backbone, name, t], seeds) for name in names] for t in teachers}
        means = {t: np.mean([scores for scores, _ in found], axis=0) for t, found in runs.items()}
        values.append(means[teacher] - means[against])
        drawn = [np.mean([spread for _, spread in runs[t]], axis=0) for t in (teacher, against)]
        replicates.append(drawn[0] - drawn[1])
        noise.append(paired_noise([m for m in means.values() if np.isfinite(m).all()]))
    scenes = min(table[backbone, name, teacher]["n_scenes"] for backbone, name in pairs)
    mean = float(np.mean([found.mean() for found in values]))
    return _estimate(mean, spread(values, replicates, scenes, noise), level, len(pairs))


def _of_seeds(row: Row, seeds: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a row's scores (K,) and replicates (K,R) for these seeds; NaN for a seed that it lacks."""
    resamples = np.asarray(row["replicates"], dtype=np.float64).reshape(len(row["seeds"]), -1)
    found = dict(zip(row["seeds"], zip(row["seed_values"], resamples, strict=True), strict=True))
    lacking = math.nan, np.full(resamples.shape[1], math.nan)
    chosen = [found.get(seed, lacking) for seed in seeds]
    return np.asarray([value for value, _ in chosen], dtype=np.float64), np.stack([drawn for _, drawn in chosen])


def _estimate(value: float, sure: Spread | None, level: float, count: int) -> Estimate:
    low, high = sure.interval(value, level) if sure else (None, None)
    return Estimate(value, low, high, count)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run's point, and both of its numbers on every resample of scenes (R,)."""

    point: Point
    correspondence: NDArray[np.float64]
    performance: NDArray[np.float64]


def _runs(chosen: Sequence[Row]) -> list[_Run]:
    """Return every run with a correspondence score and headline scores on other benchmarks; their mean is its performance."""
    runs = []
    for backbone in unique(chosen, "backbone"):
        for teacher in unique(chosen, "teacher"):
            mine = [row for row in chosen if (row["backbone"], row["teacher"]) == (backbone, teacher)]
            levels = [row for row in mine if row["task"] == "representation"]
            others = [row for row in mine if row["task"] != "representation"]
            if levels and others:
                seeds = levels[0]["seeds"]
                x, x_drawn = _of_seeds(levels[0], seeds)
                tables = [_of_seeds(row, seeds) for row in others]
                y, y_drawn = np.mean([v for v, _ in tables], axis=0), np.mean([drawn for _, drawn in tables], axis=0)
                points = [(backbone, teacher, *run) for run in zip(seeds, x.tolist(), y.tolist(), strict=True)]
                runs += [_Run(*parts) for parts in zip(points, x_drawn, y_drawn, strict=True)]
    return runs


def associations(rows: Sequence[Row], dataset: str, recipe: str, level: float) -> list[Association]:
    """Answer question 2 over runs: each backbone; all pooled within backbones; all pooled within backbone and teacher.

    The last one asks whether runs of the same teacher that differ by seed alone show it too: without that, whatever a
    teacher does to both numbers is enough for a correlation. It needs two seeds.
    """
    chosen = headline_rows(rows, dataset, recipe)
    runs, scenes = _runs(chosen), min((row["n_scenes"] for row in chosen), default=0)
    backbones = list(dict.fromkeys(run.point[0] for run in runs))
    wanted = [([run for run in runs if run.point[0] == b], (dataset, recipe, b, ""), 0) for b in backbones]
    if len(backbones) > 1:
        wanted.append((runs, (dataset, recipe, "", BACKBONES), 1))
    if len(runs) >= 2 * len({run.point[:2] for run in runs}) > 2:
        wanted.append((runs, (dataset, recipe, "", TEACHERS), 2))
    return [_association(found, scope, parts, scenes, level) for found, scope, parts in wanted]


def main_association(found: Sequence[Association]) -> Association | None:
    """Return the association that answers question 2: pooled within backbones, or the only backbone's."""
    chosen = [association for association in found if association.points and association.within != TEACHERS]
    return chosen[-1] if chosen else None


def _centre(values: NDArray[np.float64], groups: Sequence[tuple[object, ...]]) -> NDArray[np.float64]:
    """Subtract the group means from values (n,...)."""
    moved = values.copy()
    for group in dict.fromkeys(groups):
        mine = [i for i, other in enumerate(groups) if other == group]
        moved[mine] -= values[mine].mean(0)
    # rounded, so that what was equal stays equal: ranks would order the rounding errors
    return np.round(moved, 9)


def _association(runs: Sequence[_Run], scope: tuple[str, str, str, str], parts: int, scenes: int, level: float) -> Association:
    """Correlate runs after subtracting the mean of each group that shares the first ``parts`` of (backbone, teacher)."""
    points = [run.point for run in runs]
    groups, teachers = [point[:parts] for point in points], [point[:2] for point in points]
    sides = [np.asarray([point[i] for point in points]) for i in (3, 4)]
    width = min(len(drawn) for run in runs for drawn in (run.correspondence, run.performance))
    drawn = [np.stack([getattr(run, name)[:width] for run in runs]) for name in ("correspondence", "performance")]
    if parts:
        sides, drawn = [_centre(side, groups) for side in sides], [_centre(table, groups) for table in drawn]
    freedom = _independent(sides, teachers, parts) - len(set(groups)) - 2
    kinds: tuple[Correlation, Correlation] = ("spearman", "pearson")
    found = [_correlated(sides, drawn, freedom if scenes >= MIN_SCENES else 0.0, level, kind) for kind in kinds]
    moved = [(*p[:3], x, y) for p, x, y in zip(points, sides[0].tolist(), sides[1].tolist(), strict=True)]
    return Association(*scope, found[0], found[1], tuple(moved))


def _independent(sides: Sequence[NDArray[np.float64]], teachers: Sequence[tuple[object, ...]], parts: int) -> float:
    """Return how many independent runs these are worth (see the module's text); all of them where teachers' means are taken
    off.
    """
    count, clusters = len(teachers), len(set(teachers))
    if parts > 1 or count == clusters:
        return float(count)
    between, per = 1.0, count / clusters
    backbones = len({teacher[0] for teacher in teachers})
    for side in sides:
        own = _centre(side, [teacher[:1] for teacher in teachers])
        inside = float((_centre(own, teachers) ** 2).sum()) / (count - clusters)
        above = float(((own - _centre(own, teachers)) ** 2).sum()) / max(clusters - backbones, 1)
        total = above + (per - 1) * inside
        between *= min(max((above - inside) / total, 0.0), 1.0) if total else 1.0
    return max(count / (1 + (per - 1) * between), float(clusters))


def _correlated(
    sides: Sequence[NDArray[np.float64]], drawn: Sequence[NDArray[np.float64]], freedom: float, level: float, kind: Correlation
) -> Estimate:
    """Return a correlation's interval; none below one degree of ``freedom`` (runs less group means and Fisher's three)."""
    value, count = float(correlations(sides[0], sides[1], kind)), len(sides[0])
    if not math.isfinite(value) or freedom < 1:
        return Estimate(value, None, None, count)
    by_runs = (1 + value**2 / 2 if kind == "spearman" else 1.0) / freedom
    resampled = to_fisher(correlations(drawn[0].T, drawn[1].T, kind))
    by_scenes = float(np.nanvar(resampled)) if np.isfinite(resampled).any() else 0.0
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(max(by_runs, by_scenes))
    centre = float(to_fisher(value))
    return Estimate(value, math.tanh(centre - half), math.tanh(centre + half), count)


def scene_correlations(rows: Sequence[Row], dataset: str, recipe: str) -> list[Row]:
    """Return derived rows: correlation over scenes within runs, per backbone, teacher and benchmark."""
    return [
        row
        for row in rows
        if row["row_type"] == DERIVED and row["subset"] == "all" and (row["dataset"], row["recipe"]) == (dataset, recipe)
    ]
