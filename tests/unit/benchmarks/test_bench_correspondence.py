"""The correspondence benchmark: samples, parsing and means over the scenes that have pairs."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scenes.types import Answer, ModelOutput


def test_samples_are_the_scenes_of_the_split(make_index, member, record):
    index = make_index([record("b", ["chair"]), record("a", ["chair"]), record("c", ["chair"], split="train")], {})
    correspondence = member("correspondence")
    assert [s.sample_id for s in correspondence.samples(index, "test")] == ["b", "a"]
    assert correspondence.training_samples(index) == []


def test_parse(make_index, member, record):
    index = make_index([record("a", ["chair"])], {})
    correspondence = member("correspondence")
    sample = correspondence.samples(index, "test")[0]
    good = correspondence.parse(sample, ModelOutput(value=0.5, count=3, scores=(0.25, 9.0)))
    assert good == Answer(value=0.5, count=3, scores=(0.25, 9.0))
    for value in (None, float("nan"), float("inf")):
        assert correspondence.parse(sample, ModelOutput(value=value, count=3)) == Answer(parsed=False)
    assert correspondence.parse(sample, ModelOutput(value=float("nan"), count=0)) == Answer()


def test_scores_by_hand(make_index, member, record, value):
    index = make_index([record(name, ["chair"]) for name in "abcd"], {})
    correspondence = member("correspondence")
    samples = correspondence.samples(index, "test")
    answers = [
        Answer(value=0.5, count=3, scores=(0.25, 9.0)),
        Answer(value=0.75, count=1, scores=(float("nan"), 0.0)),
        Answer(scores=(0.125, 4.0)),
        Answer(parsed=False),
    ]
    results = correspondence.score(samples, answers, index)
    assert value(results, "same_voxel") == pytest.approx(0.625)
    assert value(results, "different_voxel") == pytest.approx((0.25 + 0.125) / 2)
    assert value(results, "margin") == pytest.approx(0.25)
    assert value(results, "no_pairs") == 25.0
    assert value(results, "unparsed") == 25.0
    assert value(results, "pairs") == 1.0
    same = next(r for r in results if r.metric == "same_voxel")
    assert same.n == same.n_scenes == 2
    assert set(same.per_sample) == {"a", "b"}
    # A resample without a and b has no mean.
    assert np.isnan(same.replicates).any()
    assert np.nanmin(same.replicates) == 0.5


def test_nothing_measurable_at_all_leaves_the_means_out(make_index, member, record):
    index = make_index([record("a", ["chair"])], {})
    correspondence = member("correspondence")
    results = correspondence.score(correspondence.samples(index, "test"), [Answer()], index)
    assert [r.metric for r in results] == ["pairs", "no_pairs", "unparsed"]
