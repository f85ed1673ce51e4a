"""The correspondence score against all pairs written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.metrics import correspondence as module
from pipeline.metrics.correspondence import correspondence


def brute_force(features, voxel):
    views, tokens, _ = features.shape
    same, different = [], []
    cells = [(v, n) for v in range(views) for n in range(tokens) if voxel[v, n] >= 0]
    for i, a in enumerate(cells):
        for b in cells[i + 1 :]:
            if a[0] == b[0]:
                continue
            x, y = features[a].astype(np.float64), features[b].astype(np.float64)
            scale = np.linalg.norm(x) * np.linalg.norm(y)
            (same if voxel[a] == voxel[b] else different).append(x @ y / scale if scale else 0.0)
    return same, different


@pytest.mark.parametrize("seed", range(6))
def test_equals_all_pairs(seed, monkeypatch):
    monkeypatch.setattr(module, "_CHANNEL_BLOCK", 3)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(4, 9, 7)).astype(np.float32)
    features[0, 0] = 0
    voxel = rng.integers(-1, 6, size=(4, 9))
    same, different = brute_force(features, voxel)
    result = correspondence(features, voxel)
    assert (result.same_pairs, result.different_pairs) == (len(same), len(different))
    assert result.same_voxel == pytest.approx(np.mean(same), abs=1e-9)
    assert result.different_voxel == pytest.approx(np.mean(different), abs=1e-9)


def test_by_hand():
    """Two views: cells A and B in view 0, C in view 1 beside A's voxel. A-C same voxel, B-C different."""
    features = np.array([[[2.0, 0], [0, 3.0]], [[1.0, 1.0], [9, 9]]])
    voxel = np.array([[5, 6], [5, -1]])
    result = correspondence(features, voxel)
    assert result.same_voxel == pytest.approx(1 / math.sqrt(2))
    assert result.different_voxel == pytest.approx(1 / math.sqrt(2))
    assert (result.same_pairs, result.different_pairs) == (1, 1)


def test_pairs_within_a_view_do_not_count():
    result = correspondence(np.ones((1, 4, 2)), np.zeros((1, 4), dtype=np.int64))
    assert (result.same_pairs, result.different_pairs) == (0, 0)
    assert math.isnan(result.same_voxel)
    assert math.isnan(result.different_voxel)


def test_nothing_valid_and_large_ids():
    assert correspondence(np.ones((2, 3, 4)), np.full((2, 3), -1)).same_pairs == 0
    voxel = np.array([[2**62, 2**62 + 1], [2**62, -1]])
    assert correspondence(np.ones((2, 2, 4)), voxel).same_pairs == 1


def test_non_finite_features_give_nan():
    features = np.ones((2, 2, 4))
    features[0, 0, 0] = np.nan
    assert math.isnan(correspondence(features, np.zeros((2, 2), dtype=np.int64)).same_voxel)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="are not"):
        correspondence(np.ones((2, 3, 4)), np.zeros((3, 2), dtype=np.int64))
