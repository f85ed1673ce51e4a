"""IoU, the choice of boxes and the F1 of a query, worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.metrics.boxes import best_proposal, chance_f1, choose_cumulative, iou, paired_iou, queries_f1, usable_boxes


def cube(x: float, edge: float = 1.0) -> list[float]:
    return [x, 0, 0, edge, edge, edge]


def query_f1(predicted, targets, thresholds=(0.25, 0.5)):
    """One query, scored together with others around it that must not change it."""
    others = [([cube(0)], np.array([cube(0)])), ([], np.zeros((0, 6))), ([cube(0), cube(5)], np.array([cube(0), cube(5)]))]
    asked = [others[0], (predicted, np.asarray(targets, dtype=float).reshape(-1, 6)), *others[1:]]
    found = queries_f1([p for p, _ in asked], [t for _, t in asked], thresholds)
    assert found[[0, 2, 3]].tolist() == [[1.0, 1.0]] * 3
    return tuple(found[1].tolist())


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
    assert chance_f1(iou([cube(0), cube(10)], [])) == pytest.approx((1 / 3, 1 / 3))
    assert chance_f1(iou([cube(0), cube(10)], [cube(0)])) == pytest.approx((1 / 3, 1 / 3))
    # One of two targets hit: F1 2/3 for one of three choices.
    assert chance_f1(iou([cube(0), cube(10)], [cube(0), cube(20)])) == pytest.approx((2 / 9, 2 / 9))
    assert chance_f1(iou([], [cube(0)])) == (0.0, 0.0)
    assert chance_f1(iou([], [])) == (1.0, 1.0)


def test_paired_iou_is_the_diagonal_to_the_last_bit():
    rng = np.random.default_rng(1)
    first, second = (np.concatenate([rng.uniform(-1, 1, (50, 3)), rng.uniform(0, 2, (50, 3))], axis=1) for _ in "ab")
    assert paired_iou(first, second).tolist() == np.diag(iou(first, second)).tolist()


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, True),
        ({3: 0.0}, True),  # a picture on a wall may be flat
        ({3: -0.1}, False),
        ({4: -1.0, 5: -1.0}, False),  # two negative sizes have a positive product
        ({0: float("nan")}, False),
        ({5: float("inf")}, False),
        ({0: 1e300}, False),  # a volume of such boxes overflows
    ],
)
def test_usable_boxes(change, usable):
    box = cube(0)
    for place, number in change.items():
        box[place] = number
    assert usable_boxes([cube(1), box]).tolist() == [True, usable]
    assert usable_boxes([]).tolist() == []
