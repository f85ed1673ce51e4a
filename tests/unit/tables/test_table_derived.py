"""Scene by scene: correspondence against performance."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tables.derived import MIN_SCENES, QUARTERS, SCENE_CORRELATION, derived_scores
from pipeline.tables.scores import SampleScores

SCENES = [f"s{i}" for i in range(8)]


def scores(values: list[float], scenes: list[str]) -> SampleScores:
    return SampleScores(tuple(f"{scene}|{i}" for i, scene in enumerate(scenes)), tuple(scenes), np.asarray(values))


def test_correlation_and_quarters_by_hand():
    correspondence = scores([8, 7, 6, 5, 4, 3, 2, 1], SCENES)
    twice = [scene for scene in SCENES for _ in range(2)]
    target = scores([80, 60, 70, 70, 60, 60, 50, 50, 40, 40, 30, 30, 20, 20, 10, 10], twice)
    found = {(metric, subset): score for metric, subset, score in derived_scores(correspondence, target, "em", 50)}
    rho = found[SCENE_CORRELATION, "all"]
    assert (rho.n, rho.n_scenes, rho.replicates.shape) == (16, 8, (50,))
    assert rho.value == pytest.approx(0.994, abs=0.001)  # only the first two scenes tie
    assert [found["em", quarter].value for quarter in QUARTERS] == [15.0, 35.0, 55.0, 70.0]
    assert [found["em", quarter].n for quarter in QUARTERS] == [4, 4, 4, 4]


def test_too_few_scenes_give_nothing():
    few = SCENES[: MIN_SCENES - 1]
    assert not list(derived_scores(scores([1.0] * 7, few), scores([1.0] * 7, few), "em", 10))


def test_scenes_without_correspondence_are_left_out():
    correspondence = scores([float(i) for i in range(8)], SCENES)
    target = scores([float(i) for i in range(9)], [*SCENES, "elsewhere"])
    found = list(derived_scores(correspondence, target, "em", 10))
    assert found[0][2].n == 8
    assert found[0][2].value == pytest.approx(1.0)


def test_a_constant_score_has_no_correlation():
    found = list(derived_scores(scores([1.0] * 8, SCENES), scores([float(i) for i in range(8)], SCENES), "em", 10))
    assert np.isnan(found[0][2].value)
