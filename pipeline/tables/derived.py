"""Does correspondence go with performance, scene by scene? (3DRS, 2.1.3, sorts samples by it.)

Within one run every test scene has a correspondence score (representation benchmark) and a mean per-sample score of each
other benchmark's headline metric. Two kinds of derived metrics follow, per run:

``scene_correlation``   Spearman correlation over scenes of the two; subset ``all``.
the headline metric     over the scenes of one quarter by correspondence, subsets ``correspondence_q1`` (lowest quarter) to
                        ``correspondence_q4``: the form of the paper's figure.

Resamples are drawn over the same scenes for every run, so they pair like all others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.stats import correlations, mean_replicates, scene_weights
from pipeline.tables.scores import SampleScores, SetScore

SCENE_CORRELATION = "scene_correlation"
QUARTERS = tuple(f"correspondence_q{i}" for i in (1, 2, 3, 4))
MIN_SCENES = 8
"""Below two scenes a quarter nothing is derived."""


def derived_scores(
    correspondence: SampleScores, target: SampleScores, headline: str, replicates: int
) -> Iterator[tuple[str, str, SetScore]]:
    """Yield (metric, subset, score) of one benchmark in one run; nothing when fewer than MIN_SCENES scenes have both scores."""
    level_of = _scene_means(correspondence)
    keep = [i for i, (s, v) in enumerate(zip(target.scene_ids, target.values, strict=True)) if s in level_of and np.isfinite(v)]
    values = target.values[keep]
    scenes, scene_index = np.unique(np.asarray([target.scene_ids[i] for i in keep], dtype=str), return_inverse=True)
    if len(scenes) < MIN_SCENES:
        return
    levels = np.asarray([level_of[scene] for scene in scenes])
    weights = scene_weights(scenes.tolist(), replicates, 0)
    yield SCENE_CORRELATION, "all", _correlation(levels, values, scene_index, weights)
    order = np.argsort(np.argsort(levels, kind="stable"), kind="stable")
    quarter = (4 * order) // len(scenes)
    for i, subset in enumerate(QUARTERS):
        inside = quarter[scene_index] == i
        spread = mean_replicates(values[inside], scene_index[inside], weights)
        yield headline, subset, SetScore(float(values[inside].mean()), int(inside.sum()), int((quarter == i).sum()), spread)


def _correlation(
    levels: NDArray[np.float64], values: NDArray[np.float64], scene_index: NDArray[np.int64], weights: NDArray[np.float64]
) -> SetScore:
    count = len(levels)
    means = np.bincount(scene_index, weights=values, minlength=count) / np.bincount(scene_index, minlength=count)
    drawn = (
        np.stack([np.repeat(np.arange(count), row.astype(np.int64)) for row in weights])
        if len(weights)
        else np.zeros((0, 3), int)
    )
    spread = correlations(levels[drawn], means[drawn], "spearman")
    return SetScore(float(correlations(levels, means, "spearman")), len(values), count, np.atleast_1d(spread))


def _scene_means(scores: SampleScores) -> dict[str, float]:
    """Map scene id to the mean of its finite values."""
    table: dict[str, list[float]] = {}
    for scene, value in zip(scores.scene_ids, scores.values, strict=True):
        if np.isfinite(value):
            table.setdefault(scene, []).append(float(value))
    return {scene: float(np.mean(found)) for scene, found in table.items()}
