"""IoU, the choice of boxes and the F1 of a query, worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.metrics.boxes import best_proposal, chance_f1, choose_cumulative, iou, query_f1


def cube(x: float, edge: float = 1.0) -> list[float]:
    return [x, 0, 0, edge, edge, edge]


def test_iou_by_hand():
    values = iou([cube(0), cube(0, 2)], [cube(0), cube(0.5), cube(1.0), cube(5)])
    assert values[0] == pytest.approx([1, 1 / 3, 0, 0], abs=1e-7)
    # The small cube lies in the one of edge 2: 1/8; shifted by half still inside; by 1.0 half of it: 0.5 / 8.5.
    assert values[1] == pytest.approx([1 / 8, 1 / 8, 0.5 / 8.5, 0], abs=1e-7)


def test_iou_of_nothing_and_of_flat_boxes():
    assert iou([], [cube(0)]).shape == (0, 1)
    assert iou(np.zeros((1, 6)), np.zeros((1, 6)))[0, 0] == 0.0


def test_exact_threshold_is_just_missed_as_officially():
    """Two of three units common: exact IoU 0.5, less with the official 1e-8 in the denominator."""
    a, b = [0.0, 0, 0, 3, 1, 1], [1.0, 0, 0, 3, 1, 1]
    assert iou(a, b)[0, 0] == pytest.approx(0.5)
    assert iou(a, b)[0, 0] < 0.5


def test_best_proposal_first_of_equals_and_none():
    assert best_proposal(cube(0), [cube(0.9), cube(0.2), cube(-0.2)]) == (1, pytest.approx(0.8 / 1.2))
    assert best_proposal(cube(0), [cube(0.9)]) is None
    assert best_proposal(cube(0), []) is None


def test_choose_cumulative_counts_boundary_as_reached():
    assert choose_cumulative([0.4, 0.35, 0.25], 0.4) == [0]
    assert choose_cumulative([0.39, 0.35, 0.26], 0.4) == [0, 1]
    assert choose_cumulative([1.0], 0.4) == []


def test_query_f1_empty_sides():
    assert query_f1([], []) == (1.0, 1.0)
    assert query_f1([cube(0)], []) == (0.0, 0.0)
    assert query_f1([], [cube(0)]) == (0.0, 0.0)


def test_matching_maximises_the_total_not_the_first_best():
    """Prediction a overlaps both targets, b only target 0: greedy by a's best would leave b without a partner."""
    targets = [cube(0), cube(1)]
    predictions = [[0.4, 0, 0, 1, 1, 1], [-0.5, 0, 0, 1, 1, 1]]
    overlaps = iou(predictions, targets)
    assert overlaps[0].argmax() == 0
    assert overlaps[1, 1] == 0
    # a-1 (0.4/1.6 = 0.25) and b-0 (1/3) sum to more than a-0 (0.6/1.4) alone.
    assert query_f1(predictions, targets, (0.2, 0.3))[0] == 1.0
    assert query_f1(predictions, targets, (0.2, 0.3))[1] == 0.5


def test_duplicate_predictions_count_once():
    assert query_f1([cube(0), cube(0)], [cube(0)]) == (2 / 3, 2 / 3)


def test_query_f1_against_all_assignments():
    rng = np.random.default_rng(0)
    for _ in range(30):
        predictions, targets = (
            np.concatenate([rng.uniform(0, 1.5, (count, 3)), np.ones((count, 3))], axis=1) for count in rng.integers(1, 4, 2)
        )
        overlaps = iou(predictions, targets)
        if len(predictions) > len(targets):
            overlaps = overlaps.T
        best = max(
            (
                tuple(overlaps[i, j] for i, j in enumerate(p))
                for p in itertools.permutations(range(overlaps.shape[1]), len(overlaps))
            ),
            key=sum,
        )
        expected = 2 * sum(v >= 0.25 for v in best) / sum(overlaps.shape)
        assert query_f1(predictions, targets)[0] == pytest.approx(expected)


def test_chance_f1():
    assert chance_f1([cube(0), cube(10)], [], 0.25) == pytest.approx(1 / 3)
    assert chance_f1([cube(0), cube(10)], [cube(0)], 0.25) == pytest.approx(1 / 3)
    assert chance_f1([], [cube(0)], 0.25) == 0.0
    assert chance_f1([], [], 0.25) == 1.0
