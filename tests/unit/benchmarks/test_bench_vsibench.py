"""VSI-Bench: reading of official rows, parsing, the average over tasks and its levels, worked by hand."""

from __future__ import annotations

import json

import pytest

from pipeline.backbones._transformers.prompts import user_text
from pipeline.benchmarks.vsibench import DEBIASED
from pipeline.core.errors import AnnotationError
from pipeline.scenes.types import Answer, ModelOutput


def row(number, kind, truth, options=None, scene="room0"):
    return {
        "id": number,
        "dataset": "scannet",
        "scene_name": scene,
        "question_type": kind,
        "question": "How?\nSo?",
        "options": options,
        "ground_truth": truth,
    }


SIDES = ["A. left", "B. right"]
ROWS = [
    row(0, "object_counting", "4"),
    row(1, "room_size_estimation", 20.5),
    row(2, "object_rel_direction_easy", "A", SIDES),
    row(3, "object_rel_direction_hard", "B", ["A. front-left", "B. front-right", "C. back-left", "D. back-right"]),
    row(4, "route_planning", "b", SIDES),
]


@pytest.fixture
def made(make_index, member, record):
    def make(rows, name="vsibench_test.json"):
        index = make_index([record("room0", ["chair"])], {"vsibench": {"test": {name: rows}}})
        return index, member("vsibench")

    return make


def test_samples(made):
    index, vsibench = made(ROWS)
    samples = vsibench.samples(index, "test")
    assert [s.sample_id for s in samples] == ["0", "1", "2", "3", "4"]
    assert [s.numeric for s in samples] == [True, True, False, False, False]
    assert [s.answer for s in samples] == ["4", "20.5", "A", "B", "B"]
    assert samples[2].choices == ("A. left", "B. right")
    assert samples[2].subsets == ("object_rel_direction_easy", "object_rel_direction")
    assert samples[0].subsets == ("object_counting",)
    assert user_text(samples[1]).split("\n")[1:3] == ["How?", "So?"]


def test_one_object_a_line_reads_the_same(made):
    index, vsibench = made(ROWS)
    listed = vsibench.samples(index, "test")
    index, vsibench = made("\n".join(json.dumps(r) for r in ROWS) + "\n", "test.jsonl")
    assert vsibench.samples(index, "test") == listed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_type": "object_weight"}, "question_type is 'object_weight'"),
        ({"ground_truth": "0"}, "a number above 0"),
        ({"ground_truth": "-1"}, "a number above 0"),
        ({"ground_truth": "nan"}, "a number above 0"),
        ({"ground_truth": "4 chairs"}, "a number above 0"),
        ({"ground_truth": True}, "a number above 0"),
        ({"ground_truth": None}, "a number above 0"),
        ({"question_type": "route_planning"}, "list of strings"),
        ({"question_type": "route_planning", "options": ["A. left"], "ground_truth": "A"}, "two or more"),
        ({"question_type": "route_planning", "options": ["left", "right"], "ground_truth": "A"}, "two or more"),
        ({"question_type": "route_planning", "options": SIDES, "ground_truth": "C"}, "letter of one of the options"),
    ],
)
def test_faults(made, change, message):
    index, vsibench = made([ROWS[0] | change])
    with pytest.raises(AnnotationError, match=message):
        vsibench.samples(index, "test")


def test_bad_lines_are_refused(made):
    index, vsibench = made(json.dumps(ROWS[0]) + '\n{"id": 1,', "test.jsonl")
    with pytest.raises(AnnotationError, match="line 2 is not valid JSON"):
        vsibench.samples(index, "test")


@pytest.mark.parametrize(
    ("place", "text", "parsed"),
    [
        (0, "4", True), (0, " 4.5 m", True), (0, "four", False), (0, "", False), (0, "nan", False), (0, None, False),
        (2, "A", True), (2, "b. right", True), (2, "C", False), (2, "left", False), (2, "", False), (2, "\U0001f449", False),
    ],
)  # fmt: skip
def test_parse_counts_what_is_no_number_or_letter(made, place, text, parsed):
    index, vsibench = made(ROWS)
    sample = vsibench.samples(index, "test")[place]
    assert vsibench.parse(sample, ModelOutput(raw_text=text)).parsed is parsed


def test_scores_by_hand(made, value):
    """Counting 4 said 3: error 0.25, tolerances 0.5 ... 0.25 (floating point: 1 - 0.75 is exactly 0.25), 6 of 10.

    Room size 0, directions (easy 1, hard 0) 0.5, routes 1: average (60 + 0 + 50 + 100) / 4.
    """
    index, vsibench = made(ROWS)
    samples = vsibench.samples(index, "test")
    answers = [Answer(text="3"), Answer(text="?", parsed=False), Answer(text="a."), Answer(text="A"), Answer(text="B")]
    results = vsibench.score(samples, answers, index)
    assert value(results, "score", "object_counting") == pytest.approx(60.0)
    assert value(results, "score", "object_rel_direction") == pytest.approx(50.0)
    assert value(results, "score") == pytest.approx(52.5)
    assert value(results, "score_by_question") == pytest.approx(100 * (0.6 + 0 + 1 + 0 + 1) / 5)
    assert value(results, "mra") == pytest.approx(30.0)
    assert value(results, "accuracy") == pytest.approx(200 / 3)
    assert value(results, "accuracy", reference="chance") == pytest.approx(100 * (0.5 + 0.25 + 0.5) / 3)
    assert value(results, "score", reference="type_majority") == 100.0  # one question of each type
    assert value(results, "tasks") == 4.0
    assert value(results, "unparsed") == 20.0
    score = next(r for r in results if (r.metric, r.subset, r.reference) == ("score", "all", ""))
    assert score.n == 5
    assert score.per_sample["0"] == pytest.approx(60.0)


def test_the_debiased_subset(made, value):
    """The column `pruned`: questions that a model which sees nothing can guess; its authors ask to report the others."""
    pruned = [True, False, False, True, False]
    index, vsibench = made([row | {"pruned": flag} for row, flag in zip(ROWS, pruned, strict=True)])
    samples = vsibench.samples(index, "test")
    assert [DEBIASED in s.subsets for s in samples] == [not flag for flag in pruned]
    answers = [Answer(text=text) for text in ("3", "20.5", "A", "A", "A")]
    results = vsibench.score(samples, answers, index)
    assert value(results, "score", DEBIASED) == pytest.approx(200 / 3)  # room size 100, direction 100, route 0
    assert value(results, "accuracy", DEBIASED) == 50.0
    assert next(r for r in results if (r.metric, r.subset, r.reference) == ("score", DEBIASED, "")).n == 3
    assert value(results, "score") == pytest.approx((60 + 100 + 50 + 0) / 4)


def test_a_file_without_the_column_has_no_such_subset_and_a_wrong_one_is_refused(made):
    index, vsibench = made(ROWS)
    assert not any(DEBIASED in s.subsets for s in vsibench.samples(index, "test"))
    index, vsibench = made([ROWS[0] | {"pruned": "no"}])
    with pytest.raises(AnnotationError, match="'pruned' is 'no'"):
        vsibench.samples(index, "test")
