"""From the score files of one dataset x backbone to the rows of its table.

Every interval is a percentile interval over resampled scenes. The resamples are the same for every run (metrics/stats.py), so a
difference of two runs is taken resample by resample, and the mean over seeds as well: what scenes have in common cancels.
The interval says what other scenes would do to the number; what other training seeds would do stands beside it
(``seed_std``, ``seed_values``, ``diff_seed_values``) and is part of the verdicts of findings.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from pipeline import __version__, paths
from pipeline.errors import DataError
from pipeline.metrics.stats import interval
from pipeline.provenance import digest
from pipeline.tables.derived import QUARTERS, SCENE_CORRELATION, derived_scores
from pipeline.tables.schema import DERIVED, MEASURED, REFERENCE, Row
from pipeline.tables.scores import Cell, MetricKey, Reals, RunKey, RunScores, SetScore, some_of

BASELINE = "none"
_CAPTION_SCORES = ("cider", "bleu", "meteor", "rouge")
_SHARES = ("no_pairs", "unparsed")


def check_comparable(cell: Cell) -> None:
    """DataError unless all runs were scored on the same samples, with the same metrics and resamples."""
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
        mend=f"snakemake --cores all -R predict -- {paths.CELL.format(dataset=cell.dataset, backbone=cell.backbone)}",
    )


def cell_rows(cell: Cell) -> list[Row]:
    """All rows of a cell: per recipe and teacher (spec order) the measured and derived ones, then the reference levels.

    DataError when runs are not comparable or a seed of a teacher has no baseline run of the same recipe and seed.
    """
    check_comparable(cell)
    cell = with_derived(cell)
    rows: list[Row] = []
    for recipe in dict.fromkeys(key.recipe for key in cell.runs):
        for teacher in dict.fromkeys(key.teacher for key in cell.runs if key.recipe == recipe):
            rows += _teacher_rows(cell, recipe, teacher)
        rows += _reference_rows(cell, recipe)
    return rows


def with_derived(cell: Cell) -> Cell:
    """The cell with derived scores added to every run, for each pair of a representation and another benchmark.

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


def _teacher_rows(cell: Cell, recipe: str, teacher: str) -> list[Row]:
    keys = [key for key in cell.runs if (key.recipe, key.teacher) == (recipe, teacher)]
    baseline = None if teacher == BASELINE else [replace(key, teacher=BASELINE) for key in keys]
    for key in baseline or ():
        if key not in cell.runs:
            raise DataError(
                f"teacher {teacher!r} has seed {key.seed} but the baseline `{BASELINE}` has not, so nothing can be paired",
                where=f"cell {cell.dataset}/{cell.backbone}, recipe {recipe}",
                mend=f"add `{BASELINE}` and the same seeds to `study` in config.yaml",
            )
    runs = [cell.runs[key] for key in keys]
    return [
        _row(cell, keys, name, [run.sets[name] for run in runs])
        | _differences([run.sets[name] for run in runs], [cell.runs[key].sets[name] for key in baseline or ()], cell, name)
        for name in runs[0].sets
        if not name[3]
    ]


def _row(cell: Cell, keys: Sequence[RunKey], name: MetricKey, scores: Sequence[SetScore]) -> Row:
    """The columns of a row that need no baseline."""
    benchmark, metric, subset, reference = name
    facts = cell.benchmarks[benchmark]
    values = np.asarray([score.value for score in scores], dtype=np.float64)
    low, high = _interval(np.mean([score.replicates for score in scores], axis=0), cell.level)
    runs = [cell.runs[key] for key in keys]
    kind = REFERENCE if reference else DERIVED if metric == SCENE_CORRELATION or subset in QUARTERS else MEASURED
    return {
        "dataset": cell.dataset,
        "backbone": cell.backbone,
        "teacher": "" if reference else keys[0].teacher,
        "recipe": keys[0].recipe,
        "benchmark": benchmark,
        "metric": metric,
        "subset": subset,
        "kind": kind,
        "reference": reference,
        "task": facts.task,
        "unit": unit(facts.task, metric),
        "headline": kind == MEASURED and metric == facts.headline and subset == "all",
        "value": _finite(values.mean()),
        "ci_low": low,
        "ci_high": high,
        "n": scores[0].n,
        "n_scenes": scores[0].n_scenes,
        "n_seeds": 0 if reference else len(keys),
        "seeds": [] if reference else [key.seed for key in keys],
        "seed_values": [] if reference else values.tolist(),
        "seed_std": _finite(values.std(ddof=1)) if len(values) > 1 and not reference else None,
        "run_digests": [] if reference else [run.manifest for run in runs],
        "scores_digest": digest([run.digests[benchmark] for run in runs]),
        "code_version": __version__,
        "spec_digest": cell.spec_digest,
    }


def _differences(scores: Sequence[SetScore], baseline: Sequence[SetScore], cell: Cell, name: MetricKey) -> Row:
    """The columns of the paired difference; empty ones when there is no baseline to compare with (the baseline itself)."""
    empty: Row = {"diff_to_none": None, "diff_low": None, "diff_high": None, "diff_opposite": None}
    empty |= {"diff_seed_values": [], "diff_replicates": []}
    if not baseline:
        return empty
    per_seed = np.asarray([a.value - b.value for a, b in zip(scores, baseline, strict=True)])
    replicates = np.mean([a.replicates - b.replicates for a, b in zip(scores, baseline, strict=True)], axis=0)
    low, high = _interval(replicates, cell.level)
    mean = _finite(per_seed.mean())
    headline = name[1:] == (cell.benchmarks[name[0]].headline, "all", "")
    return empty | {
        "diff_to_none": mean,
        "diff_low": low,
        "diff_high": high,
        "diff_seed_values": per_seed.tolist(),
        "diff_opposite": None if mean is None or not len(replicates) else float(np.mean(replicates * np.sign(mean) <= 0)),
        "diff_replicates": replicates.tolist() if headline else [],
    }


def _reference_rows(cell: Cell, recipe: str) -> list[Row]:
    """Reference levels depend on the samples only, so one run speaks for all. Their difference to `none` is paired as well."""
    first = next(key for key in cell.runs if key.recipe == recipe)
    baseline = [key for key in cell.runs if (key.recipe, key.teacher) == (recipe, BASELINE)]
    rows = []
    for name, score in cell.runs[first].sets.items():
        if name[3]:
            measured = (*name[:3], "")
            none = [cell.runs[key].sets[measured] for key in baseline if measured in cell.runs[key].sets]
            rows.append(_row(cell, [first], name, [score]) | _differences([score] * len(none), none, cell, name))
    return rows


def unit(task: str, metric: str) -> str:
    """Unit of a metric: the literature's x100 for caption scores, percent for shares, cosine for representations."""
    if metric == SCENE_CORRELATION:
        return "rank correlation"
    if metric == "pairs":
        return "count"
    if task == "representation" and metric not in _SHARES:
        return "cosine"
    return "x100" if metric.startswith(_CAPTION_SCORES) else "percent"


def _interval(replicates: Reals, level: float) -> tuple[float | None, float | None]:
    low, high = interval(replicates, level)
    return _finite(low), _finite(high)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
