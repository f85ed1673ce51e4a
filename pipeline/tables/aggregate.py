"""From the score files of one dataset x backbone to the rows of its table.

Every interval holds what other test scenes and what other training seeds would change (uncertainty.py).
The resamples of scenes are the same for every run (metrics/stats.py) and a difference is taken seed by seed, so what scenes
and seeds do to both sides cancels. The seeds' variance is pooled over the teachers of a recipe; every seed's own value stands
in the row (``seed_values``, ``diff_seed_values``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from pipeline import __version__
from pipeline.core.errors import DataError
from pipeline.core.provenance import digest
from pipeline.study import paths
from pipeline.tables.derived import QUARTERS, SCENE_CORRELATION, derived_scores
from pipeline.tables.schema import DERIVED, MEASURED, REFERENCE, Row
from pipeline.tables.scores import Cell, MetricKey, Reals, RunKey, RunScores, SetScore, some_of
from pipeline.tables.uncertainty import Noise, Spread, paired_noise, scene_spread, seed_noise, spread, to_fisher

BASELINE = "none"
_CAPTION_SCORES = ("cider", "bleu", "meteor", "rouge")
_SHARES = ("no_pairs", "unparsed")
_RANGES = {"percent": (0.0, 100.0), "x100": (0.0, np.inf), "count": (0.0, np.inf), "cosine": (-1.0, 1.0)}
"""Values that a unit can have: no interval ends outside."""


def check_comparable(cell: Cell) -> None:
    """Raise DataError unless all runs were scored on the same samples, with the same metrics and resamples."""
    first_key, first = next(iter(cell.runs.items()))
    for key, run in cell.runs.items():
        for (benchmark, metric), samples in first.samples.items():
            other = run.samples.get((benchmark, metric))
            if other is None or other.sample_ids != samples.sample_ids:
                odd = sorted(set(samples.sample_ids) ^ set(other.sample_ids if other else ()))
                what = some_of(odd) if odd else "(same ids, other order)"
                raise _not_comparable(cell, key, first_key, f"samples of {benchmark} ({metric}) differ: {what}")
        if run.sets.keys() != first.sets.keys():
            unlike = [" ".join(name).strip() for name in sorted(run.sets.keys() ^ first.sets.keys())]
            raise _not_comparable(cell, key, first_key, f"metrics differ: {some_of(unlike)}")
        for name, score in run.sets.items():
            if score.n != first.sets[name].n or score.replicates.shape != first.sets[name].replicates.shape:
                what = f"{' '.join(name).strip()}: sample or resample counts differ"
                raise _not_comparable(cell, key, first_key, what)


def _not_comparable(cell: Cell, key: RunKey, other: RunKey, what: str) -> DataError:
    def folder(run: RunKey) -> str:
        return "results/scores/" + paths.RUN.format(dataset=cell.dataset, backbone=cell.backbone, **asdict(run))

    return DataError(
        f"runs were not scored on the same samples, {what}",
        where=f"{folder(key)} against {folder(other)}",
        fix=f"snakemake --cores all -R predict -- {paths.CELL.format(dataset=cell.dataset, backbone=cell.backbone)}",
    )


def cell_rows(cell: Cell) -> list[Row]:
    """Return all rows of a cell: per recipe and teacher (spec order) measured and derived ones, then the reference levels.

    Raise DataError when runs are not comparable or a seed of a teacher has no baseline run of the same recipe and seed.
    """
    check_comparable(cell)
    cell = with_derived(cell)
    rows: list[Row] = []
    for recipe in dict.fromkeys(key.recipe for key in cell.runs):
        noise = _noise(cell, recipe)
        for teacher in dict.fromkeys(key.teacher for key in cell.runs if key.recipe == recipe):
            rows += _teacher_rows(cell, recipe, teacher, noise)
        rows += _reference_rows(cell, recipe, noise)
    return rows


def _noise(cell: Cell, recipe: str) -> dict[MetricKey, tuple[Noise, Noise]]:
    """Return per metric the variance over seeds of one run and of a paired difference, pooled over a recipe's teachers.

    Seeds that not every teacher has are left out of it.
    """
    runs = {(key.teacher, key.seed): run for key, run in cell.runs.items() if key.recipe == recipe}
    teachers, seeds = (list(dict.fromkeys(part)) for part in zip(*runs, strict=True))
    shared = [seed for seed in seeds if all((teacher, seed) in runs for teacher in teachers)]
    found = {}
    for name in next(iter(runs.values())).sets:
        values = [[runs[teacher, seed].sets[name].value for seed in shared] for teacher in teachers]
        table = np.asarray(values, dtype=np.float64).reshape(len(teachers), -1)
        found[name] = seed_noise(_comparable(name, table)), paired_noise(table)
    return found


def _comparable(name: MetricKey, values: Reals) -> Reals:
    """Turn correlations into Fisher's z, whose variance is the same everywhere; leave other values unchanged."""
    return to_fisher(values) if name[1] == SCENE_CORRELATION else values


def with_derived(cell: Cell) -> Cell:
    """Return the cell with derived scores added to every run, for each pair of a representation and another benchmark.

    A derived score that one run cannot have (a constant score has no rank correlation) is left out for all.
    """
    sources = [(name, facts.headline) for name, facts in cell.benchmarks.items() if facts.task == "representation"]
    targets = [(name, facts.headline) for name, facts in cell.benchmarks.items() if facts.task != "representation"]
    runs: dict[RunKey, RunScores] = {}
    for key, run in cell.runs.items():
        sets = dict(run.sets)
        for source in sources[:1]:
            for target in targets:
                if source not in run.samples or target not in run.samples:
                    continue
                resamples = len(run.sets[*target, "all", ""].replicates)
                for metric, subset, score in derived_scores(run.samples[source], run.samples[target], target[1], resamples):
                    sets[target[0], metric, subset, ""] = score
        runs[key] = replace(run, sets=sets)
    common = set.intersection(*({name for name, s in run.sets.items() if np.isfinite(s.value)} for run in runs.values()))
    measured = set(next(iter(cell.runs.values())).sets)
    kept = {key: {n: s for n, s in run.sets.items() if n in measured or n in common} for key, run in runs.items()}
    return replace(cell, runs={key: replace(run, sets=kept[key]) for key, run in runs.items()})


def _teacher_rows(cell: Cell, recipe: str, teacher: str, noise: Mapping[MetricKey, tuple[Noise, Noise]]) -> list[Row]:
    keys = [key for key in cell.runs if (key.recipe, key.teacher) == (recipe, teacher)]
    baseline = None if teacher == BASELINE else [replace(key, teacher=BASELINE) for key in keys]
    for key in baseline or ():
        if key not in cell.runs:
            raise DataError(
                f"teacher {teacher!r} has seed {key.seed} but the baseline `{BASELINE}` has not, so nothing can be paired",
                where=f"cell {cell.dataset}/{cell.backbone}, recipe {recipe}",
                fix=f"add `{BASELINE}` and the same seeds to `study` in config.yaml",
            )
    rows = []
    for name in cell.runs[keys[0]].sets:
        if name[3]:
            continue
        scores = [cell.runs[key].sets[name] for key in keys]
        rows.append(_row(cell, keys, name, scores, _spread(name, scores, noise[name][0])))
        if baseline:
            rows[-1] |= _differences(scores, [cell.runs[key].sets[name] for key in baseline], cell.level, noise[name][1])
    return rows


def _spread(name: MetricKey, scores: Sequence[SetScore], noise: Noise) -> Spread | None:
    values = np.asarray([score.value for score in scores])
    drawn = np.stack([score.replicates for score in scores])
    return spread([_comparable(name, values)], [_comparable(name, drawn)], scores[0].n_scenes, [noise])


def _row(cell: Cell, keys: Sequence[RunKey], name: MetricKey, scores: Sequence[SetScore], sure: Spread | None) -> Row:
    """Return a row's columns that need no baseline; those of the difference stay empty (the baseline itself has none)."""
    benchmark, metric, subset, reference = name
    facts = cell.benchmarks[benchmark]
    values = np.asarray([score.value for score in scores], dtype=np.float64)
    runs = [cell.runs[key] for key in keys]
    row_type = REFERENCE if reference else DERIVED if metric == SCENE_CORRELATION or subset in QUARTERS else MEASURED
    headline = row_type == MEASURED and metric == facts.headline and subset == "all"
    low, high = _ends(name, unit(facts.task, metric), float(values.mean()), sure, cell.level)
    return {
        "dataset": cell.dataset,
        "backbone": cell.backbone,
        "teacher": "" if reference else keys[0].teacher,
        "recipe": keys[0].recipe,
        "benchmark": benchmark,
        "metric": metric,
        "subset": subset,
        "row_type": row_type,
        "reference": reference,
        "task": facts.task,
        "unit": unit(facts.task, metric),
        "headline": headline,
        "value": _finite(values.mean()),
        "ci_low": low,
        "ci_high": high,
        "n": scores[0].n,
        "n_scenes": scores[0].n_scenes,
        "n_seeds": 0 if reference else len(keys),
        "seeds": [] if reference else [key.seed for key in keys],
        "seed_values": [] if reference else values.tolist(),
        "seed_std": _finite(values.std(ddof=1)) if len(values) > 1 and not reference else None,
        **dict.fromkeys(("diff_to_none", "diff_low", "diff_high", "diff_p")),
        "diff_seed_values": [],
        "replicates": [score.replicates.tolist() for score in scores] if headline else [],
        "run_digests": [] if reference else [run.manifest for run in runs],
        "machines": [] if reference else [run.machine for run in runs],
        "scores_digest": digest([run.digests[benchmark] for run in runs]),
        "code_version": __version__,
        "spec_digest": cell.spec_digest,
    }


def _ends(name: MetricKey, kind: str, value: float, sure: Spread | None, level: float) -> tuple[float | None, float | None]:
    """Return the ends of a value's interval, inside the range of its unit."""
    if sure is None:
        return None, None
    if name[1] == SCENE_CORRELATION:
        low, high = np.tanh(sure.interval(float(to_fisher(value)), level))
        return float(low), float(high)
    least, most = _RANGES[kind]
    low, high = sure.interval(value, level)
    return max(low, least), min(high, most)


def _differences(scores: Sequence[SetScore], baseline: Sequence[SetScore], level: float, noise: Noise) -> Row:
    """Return the columns of the paired difference."""
    per_seed = np.asarray([a.value - b.value for a, b in zip(scores, baseline, strict=True)])
    replicates = np.stack([a.replicates - b.replicates for a, b in zip(scores, baseline, strict=True)])
    mean, sure = float(per_seed.mean()), spread([per_seed], [replicates], scores[0].n_scenes, [noise])
    low, high = sure.interval(mean, level) if sure else (None, None)
    return {
        "diff_to_none": _finite(mean),
        "diff_low": low,
        "diff_high": high,
        "diff_seed_values": per_seed.tolist(),
        "diff_p": sure.p_value(mean) if sure else None,
    }


def _reference_rows(cell: Cell, recipe: str, noise: Mapping[MetricKey, tuple[Noise, Noise]]) -> list[Row]:
    """Return rows of reference levels, from one run (they depend on the samples only), paired with `none`."""
    first = next(key for key in cell.runs if key.recipe == recipe)
    baseline = [run for key, run in cell.runs.items() if (key.recipe, key.teacher) == (recipe, BASELINE)]
    rows = []
    for name, score in cell.runs[first].sets.items():
        measured = (*name[:3], "")
        if name[3]:
            rows.append(_row(cell, [first], name, [score], scene_spread(score.replicates, score.n_scenes)))
            none = [run.sets[measured] for run in baseline if measured in run.sets]
            if none:
                rows[-1] |= _differences([score] * len(none), none, cell.level, noise[measured][0])
    return rows


def unit(task: str, metric: str) -> str:
    """Return the unit of a metric: x100 (as in papers) for caption scores, percent for shares, cosine for representations."""
    if metric == SCENE_CORRELATION:
        return "rank correlation"
    if metric == "pairs":
        return "count"
    if task == "representation" and metric not in _SHARES:
        return "cosine"
    return "x100" if metric.startswith(_CAPTION_SCORES) else "percent"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
