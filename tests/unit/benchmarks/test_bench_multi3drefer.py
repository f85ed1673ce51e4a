"""Multi3DRefer: reading, the cumulative-probability rule and F1@t, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.errors import AnnotationError, ConfigError
from pipeline.scenes.types import Answer, ModelOutput, Sample

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
    assert value(results, "cumulative_probability") == pytest.approx(40)


def outputs_of(samples, certainty):
    """Made up: the targets share ``certainty``, every other candidate and the zero target get the rest in equal parts."""
    found = []
    for sample in samples:
        rest = (1 - certainty) / (5 - len(sample.target_ids))
        chances = np.full(5, rest)
        chances[list(sample.target_ids)] = certainty / len(sample.target_ids)
        found.append(ModelOutput(probabilities=chances, boxes=BOXES))
    return found


def test_tuning_on_training_scenes_takes_the_best_probability(make_index, member, record, value):
    """Two targets share 0.8: one is enough for 0.4, both are needed from 0.45 to 0.8, a third box is wrong from 0.85."""
    train = [entry([0, 1], "mt", 0, "train0"), entry([2, 3], "mt", 1, "train0"), entry([0], "st_w_d", 0, "train1")]
    index = make_index(
        [record("room0", ["chair"] * 4), *(record(f"train{i}", ["chair"] * 4, split="train") for i in (0, 1))],
        {
            "multi3drefer": {
                "test": {"multi3drefer_test.json": [entry([0, 1], "mt")]},
                "train": {"multi3drefer_train.json": train},
            }
        },
    )
    multi = member("multi3drefer", tune_scenes=1)
    chosen = multi.tuning_samples(index)
    assert [s.sample_id for s in chosen] == ["train0|0", "train0|1"]
    multi.tune(chosen, outputs_of(chosen, 0.8), index)
    assert multi.cumulative_probability == 0.45, "of the equally good ones the nearest to 0.4"
    samples = multi.samples(index, "test")
    answers = [multi.parse(s, o) for s, o in zip(samples, outputs_of(samples, 0.8), strict=True)]
    results = member("multi3drefer").score(samples, answers, index)
    assert value(results, "f1@0.5") == 100.0
    assert value(results, "cumulative_probability") == pytest.approx(45)
    plain = member("multi3drefer")
    assert plain.tuning_samples(index) == []
    answers = [plain.parse(s, o) for s, o in zip(samples, outputs_of(samples, 0.8), strict=True)]
    assert value(plain.score(samples, answers, index), "f1@0.5") == pytest.approx(200 / 3)


def test_tuning_survives_outputs_that_are_none(make_index, member, record):
    index = make_index(
        [record("room0", ["chair"] * 4, split="train")],
        {"multi3drefer": {"train": {"multi3drefer_train.json": [entry([0], "st_w_d")]}}},
    )
    multi = member("multi3drefer", tune_scenes=9)
    multi.tune(multi.tuning_samples(index), [ModelOutput(probabilities=np.full(5, np.nan), boxes=BOXES)], index)
    assert multi.cumulative_probability == 0.4
