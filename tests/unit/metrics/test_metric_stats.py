"""Scene bootstrap: determinism, pairing, equality with scoring every resample anew."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import captions
from pipeline.metrics.stats import (
    corpus_replicates,
    correlations,
    mean_replicates,
    scene_weights,
)

PINNED = [[1, 1, 1], [3, 0, 0], [0, 2, 1], [1, 2, 0]]


def test_weights_depend_on_the_set_of_ids_and_the_seed_only():
    one = scene_weights(["b", "a", "c", "a"], 50, 0)
    assert one.shape == (50, 3)
    assert (one.sum(1) == 3).all()
    assert (one == scene_weights(["c", "b", "a"], 50, 0)).all()
    assert not (one == scene_weights(["c", "b", "a"], 50, 1)).all()
    assert not (one == scene_weights(["c", "b", "d"], 50, 0)).all()


def test_weights_are_pinned_across_machines():
    assert scene_weights(["a", "b", "c"], 4, 0).astype(int).tolist() == PINNED


def test_weights_are_those_of_a_bootstrap():
    weights = scene_weights([f"s{i}" for i in range(40)], 4000, 3)
    assert weights.mean(0) == pytest.approx(1.0, abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 40, rel=0.05)


def test_no_scenes_or_no_replicates():
    assert scene_weights([], 10, 0).shape == (10, 0)
    assert scene_weights(["a"], 0, 0).shape == (0, 1)


def test_mean_replicates_equal_resampled_means():
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 5, 30)
    values = rng.normal(size=30)
    weights = scene_weights([str(i) for i in range(5)], 20, 0)
    for row, replicate in zip(weights, mean_replicates(values, scenes, weights), strict=True):
        repeated = np.concatenate([np.tile(values[scenes == s], int(times)) for s, times in enumerate(row)])
        assert replicate == pytest.approx(repeated.mean())


def test_resample_without_any_of_the_samples_is_nan():
    weights = np.array([[2.0, 0.0], [1.0, 1.0]])
    replicates = mean_replicates([7.0], np.array([1]), weights)
    assert np.isnan(replicates[0])
    assert replicates[1] == 7.0


def test_bleu_replicates_equal_bleu_of_the_resampled_corpus():
    from pycocoevalcap.bleu.bleu import Bleu

    said = ["a red chair", "the lamp", "a blue table near it", "it is red", ""]
    truth = [("a red chair",), ("a lamp", "lamp"), ("the blue table",), ("it is a red",), ("a",)]
    scenes = np.array([0, 0, 1, 2, 2])
    weights = scene_weights(["x", "y", "z"], 15, 0)
    statistics = captions.NGrams(said, truth).bleu_statistics()
    replicates = corpus_replicates(statistics, scenes, weights, captions.bleu_combiner(2))
    for row, replicate in zip(weights, replicates, strict=True):
        drawn = [i for s, times in enumerate(row) for _ in range(int(times)) for i in np.flatnonzero(scenes == s)]
        tables = {k: list(truth[i]) for k, i in enumerate(drawn)}, {k: [said[i]] for k, i in enumerate(drawn)}
        assert replicate == pytest.approx(100 * Bleu(4).compute_score(*tables, verbose=0)[0][1], abs=1e-9)


def test_correlations_with_ties_and_constants():
    assert correlations([1, 2, 3], [2, 4, 6], "pearson") == pytest.approx(1.0)
    assert correlations([1, 2, 3], [1, 10, 100], "spearman") == pytest.approx(1.0)
    # Ranks 1 2.5 2.5 4 against 1 2 3 4: 4.5 / sqrt(4.5 * 5).
    assert correlations([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(correlations([1, 1, 1], [1, 2, 3]))
