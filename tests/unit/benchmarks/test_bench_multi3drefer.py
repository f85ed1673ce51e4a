"""Multi3DRefer: reading, the cumulative-probability rule and F1@t, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import AnnotationError, ConfigError
from pipeline.scene import Answer, ModelOutput, Sample

BOXES = np.array([[10.0 * i, 0, 0, 1, 1, 1] for i in range(4)])
SAMPLE = Sample("room0|0", "room0", "multi3drefer", "grounding", any_number=True)


def entry(object_ids, eval_type, ann_id=0, scene="room0"):
    return {
        "scene_id": scene,
        "object_ids": object_ids,
        "object_name": "chair",
        "ann_id": ann_id,
        "description": "chairs by the wall",
        "eval_type": eval_type,
    }


def file_of(*entries):
    return {"multi3drefer": {"test": {"multi3drefer_test.json": list(entries)}}}


def test_samples(make_index, member, record):
    index = make_index(
        [record("room0", ["chair"] * 4)],
        file_of(entry([], "zt_w_d"), entry([2], "st_w_d", 1), entry([3, 1], "mt", "2")),
    )
    samples = member("multi3drefer").samples(index, "test")
    assert [s.sample_id for s in samples] == ["room0|0", "room0|1", "room0|2"]
    assert [s.target_ids for s in samples] == [(), (2,), (3, 1)]
    assert [s.subsets for s in samples] == [("zt_w_d",), ("st_w_d",), ("mt",)]
    assert all(s.any_number for s in samples)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry([], "mt"), "do not go with"),
        (entry([1], "zt_w_d"), "do not go with"),
        (entry([1, 2], "st_wo_d"), "do not go with"),
        (entry([1, 1], "mt"), "do not go with"),
        (entry([1], "st"), "eval_type is 'st'"),
        (entry([8], "st_w_d"), "object 8"),
        (entry("1", "st_w_d"), "list of whole numbers"),
    ],
)
def test_faults(make_index, member, record, bad, message):
    index = make_index([record("room0", ["chair"] * 4)], file_of(bad))
    with pytest.raises(AnnotationError, match=message):
        member("multi3drefer").samples(index, "test")


@pytest.mark.parametrize(
    ("probabilities", "chosen"),
    [
        ([0.5, 0.2, 0.1, 0.1, 0.1], [0]),
        ([0.2, 0.39, 0.2, 0.11, 0.1], [1, 0]),  # 0.39 < 0.4; the tie of 0 and 2 goes to the earlier
        ([0.1, 0.3, 0.05, 0.05, 0.5], []),  # zero target wins
        ([0.3, 0.1, 0.1, 0.2, 0.3], [0, 3]),  # a tie with the zero target is no win of it
        ([0.2, 0.2, 0.2, 0.2, 0.2], [0, 1]),
        ([0.05, 0.03, 0.02, 0.01, 0.04], [0, 1, 2, 3]),  # never reaches 0.4: all
    ],
)
def test_cumulative_rule(member, probabilities, chosen):
    answer = member("multi3drefer").parse(SAMPLE, ModelOutput(probabilities=np.array(probabilities), boxes=BOXES))
    assert answer.parsed
    assert [b[0] / 10 for b in answer.boxes] == chosen
    assert answer.scores == tuple(probabilities[i] for i in chosen)


def test_threshold_is_an_option(member):
    output = ModelOutput(probabilities=np.array([0.5, 0.2, 0.1, 0.1, 0.1]), boxes=BOXES)
    assert len(member("multi3drefer", cumulative_probability=0.65).parse(SAMPLE, output).boxes) == 2
    with pytest.raises(ConfigError, match="cumulative_probability"):
        member("multi3drefer", cumulative_probability=1.5)


def test_scores_by_hand(make_index, member, record, box, value):
    index = make_index(
        [record("room0", ["chair"] * 4)],
        file_of(
            entry([], "zt_w_d", 0),
            entry([], "zt_wo_d", 1),
            entry([0], "st_w_d", 2),
            entry([0, 1, 2], "mt", 3),
            entry([3], "st_wo_d", 4),
            entry([], "zt_wo_d", 5),
        ),
    )
    multi = member("multi3drefer")
    samples = multi.samples(index, "test")
    answers = [
        Answer(),  # right: 1
        Answer(boxes=(box(0.0),)),  # wrong: 0
        Answer(boxes=(box(0.5), box(20.0))),  # IoU 1/3 and a false positive: F1@.25 = 2/3, @.5 = 0
        Answer(boxes=(box(0.0), box(10.0))),  # two of three: 4/5
        Answer(),  # missed: 0
        Answer(parsed=False),  # nothing usable is not "no object": 0
    ]
    results = multi.score(samples, answers, index)
    assert value(results, "f1@0.25") == pytest.approx(100 * (1 + 2 / 3 + 4 / 5) / 6)
    assert value(results, "f1@0.5") == pytest.approx(100 * (1 + 4 / 5) / 6)
    assert value(results, "f1@0.25", "st_w_d") == pytest.approx(200 / 3)
    assert value(results, "f1@0.5", "mt") == pytest.approx(80)
    assert value(results, "f1@0.25", "zt_wo_d") == value(results, "f1@0.5", "zt_wo_d") == 0
    assert value(results, "f1@0.25", reference="empty") == pytest.approx(50)
    # Four candidates and "nothing": zt 1/5 each; st one hit of five, F1 1; mt three hits of five, F1 2/4.
    assert value(results, "f1@0.5", reference="chance") == pytest.approx(100 * (3 / 5 + 2 * 1 / 5 + 3 / 5 * 0.5) / 6)
    assert value(results, "unparsed") == pytest.approx(100 / 6)
