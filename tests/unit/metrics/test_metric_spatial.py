"""Scores of VSI-Bench, worked by hand and against the official formula."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics import spatial


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("A", "A"),
        ("A.", "A"),
        ("B. left", "B"),
        (" 3 chairs", "3"),
        ("3.5.", "3.5"),
        ("3...", "3"),
        ("", ""),
        ("C\nbecause", "C\nbecause"),
    ],
)
def test_first_word_is_up_to_the_first_blank_without_final_stops(text, word):
    assert spatial.first_word(text) == word


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3.0), ("3.5 meters", 3.5), ("-2", -2.0), ("1e2", 100.0), ("two", None), ("", None), ("nan", None), ("inf", None),
     ("3m", None), ("\u4e8c", None), ("\U0001f600", None), ("\u0663", 3.0)],
)  # fmt: skip
def test_number(text, value):
    assert spatial.number(text) == value


@pytest.mark.parametrize(
    ("said", "true", "share"),
    [
        (10.0, 10.0, 1.0),
        (5.0, 10.0, 0.1),  # error 0.5: the first tolerance only, and just
        (4.9, 10.0, 0.0),
        (7.0, 10.0, 0.5),  # error 0.3: tolerances 0.5, 0.45, 0.4, 0.35 and, in floating point, 0.3 too
        (13.1, 10.0, 0.4),  # error 0.31: 0.5, 0.45, 0.4, 0.35
        (9.6, 10.0, 1.0),  # error 0.04: all, the last is 0.05
        (-10.0, 10.0, 0.0),
        (0.0, 10.0, 0.0),
        (1e300, 1e-3, 0.0),
    ],
)
def test_mean_relative_accuracy_by_hand(said, true, share):
    assert spatial.mean_relative_accuracy(said, true) == pytest.approx(share)


def test_mean_relative_accuracy_is_the_official_formula_also_on_the_borders():
    """The script: |p - t| / t <= 1 - linspace(start, end, int((end - start) / interval + 2)), averaged."""
    start, end, interval = 0.5, 0.95, 0.05
    steps = np.linspace(start, end, int((end - start) / interval + 2))
    for true in (1.0, 2.0, 3.7, 10.0, 40.0):
        for percent in range(0, 120, 5):
            for said in (true * (1 + percent / 100), true * (1 - percent / 100)):
                official = (abs(said - true) / true <= 1 - steps).mean()
                assert spatial.mean_relative_accuracy(said, true) == official


def test_answer_score_of_letters_and_numbers():
    assert spatial.answer_score("route_planning", "b. Turn Left", "B") == 1.0
    assert spatial.answer_score("route_planning", "(B)", "B") == 0.0
    assert spatial.answer_score("route_planning", "", "B") == 0.0
    assert spatial.answer_score("object_counting", "2 chairs", "2") == 1.0
    assert spatial.answer_score("object_counting", "two", "2") == 0.0


def test_average_is_over_tasks_and_merges_the_directions_first():
    """Counting (1 + 0) / 2, directions (1 + 0 + 0.5) / 3 = 0.5, routes 1: (0.5 + 0.5 + 1) / 3, not the mean of questions."""
    easy, medium, hard = spatial.DIRECTION_TYPES
    kinds = ["object_counting", "object_counting", easy, medium, hard, hard, "route_planning"]
    values = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    sums = spatial.type_sums(kinds, values).sum(0, keepdims=True)
    assert spatial.task_average(sums)[0] == pytest.approx(100 * 2 / 3)
    only_hard = spatial.type_sums([hard], [1.0])
    assert spatial.task_average(only_hard)[0] == 100.0  # grades and tasks without a question are left out
    assert np.isnan(spatial.task_average(np.zeros((1, 20)))[0])


def test_most_frequent_answer_of_a_type_and_ties():
    kinds = ["route_planning"] * 4 + ["object_counting"]
    assert spatial.most_frequent(kinds, ["B", "A", "A", "B", "3"]) == ["A"] * 4 + ["3"]
