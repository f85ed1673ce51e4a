"""Scan2Cap: one sample per described object, the IoU gate, and gated captions in the scores."""

from __future__ import annotations

import pytest

from pipeline.core.errors import AnnotationError
from pipeline.scenes.types import Answer, ModelOutput


def entry(object_id, ann_id, description, scene="room0", name="chair"):
    head = {"scene_id": scene, "object_id": object_id, "object_name": name, "ann_id": ann_id, "description": description}
    return head | {"token": description.lower().replace(".", " .").replace(",", " ,").split()}


def file_of(*entries, split="test"):
    return {"scan2cap": {split: {f"ScanRefer_filtered_{split}.json": list(entries)}}}


ENTRIES = (
    entry("1", "0", "A red chair."),
    entry("0", "0", "The blue chair, by the door."),
    entry("1", "1", "It is red."),
)


def test_one_sample_per_object_with_all_references_and_the_best_proposal(make_index, member, record, box):
    proposals = [box(0.4), box(0.2), box(10.5)]  # IoU with object 0: 0.6/1.4, 0.8/1.2; with object 1: 1/3
    index = make_index([record("room0", ["chair", "chair"], proposals=proposals)], file_of(*ENTRIES))
    samples = member("scan2cap").samples(index, "test")
    assert [s.sample_id for s in samples] == ["room0|1|chair", "room0|0|chair"]
    assert samples[0].references == ("A red chair.", "It is red.")
    assert samples[0].input_box is None
    assert samples[1].input_box == box(0.2)
    assert samples[1].metadata["iou"] == pytest.approx(0.8 / 1.2, abs=1e-6)


def test_training_samples_are_descriptions_with_the_true_box(make_index, member, record, box):
    index = make_index([record("room0", ["chair", "chair"], split="train")], file_of(*ENTRIES, split="train"))
    samples = member("scan2cap").training_samples(index)
    assert [s.sample_id for s in samples] == ["room0|1|0", "room0|0|0", "room0|1|1"]
    assert [s.answer for s in samples] == ["A red chair.", "The blue chair, by the door.", "It is red."]
    assert [s.input_box for s in samples] == [box(10.0), box(0.0), box(10.0)]
    # Evaluating on train: the ground truth is the candidate set, so nothing is gated.
    assert [s.input_box for s in member("scan2cap").samples(index, "train")] == [box(10.0), box(0.0)]


def test_parse(make_index, member, record, box):
    index = make_index([record("room0", ["chair", "chair"], proposals=[box(0.0)])], file_of(*ENTRIES))
    scan2cap = member("scan2cap")
    gated, shown = scan2cap.samples(index, "test")
    assert scan2cap.parse(gated, ModelOutput(raw_text="something")) == Answer()
    assert scan2cap.parse(shown, ModelOutput(raw_text=" a chair \n")) == Answer(text="a chair")
    assert scan2cap.parse(shown, ModelOutput(raw_text=" \n")) == Answer(parsed=False)


def test_gated_captions_are_scored_as_empty_whatever_was_said(make_index, member, record, box, value):
    index = make_index([record("room0", ["chair", "chair"], proposals=[box(0.0)])], file_of(*ENTRIES))
    scan2cap = member("scan2cap", meteor=False)
    samples = scan2cap.samples(index, "test")
    perfect = [Answer(text="A red chair."), Answer(text="The blue chair, by the door.")]
    empty = [Answer(), Answer(text="The blue chair, by the door.")]
    results, again = scan2cap.score(samples, perfect, index), scan2cap.score(samples, empty, index)
    for metric in ("cider@0.5", "bleu4@0.5", "rougeL@0.5", "rougeL_reference@0.5"):
        assert value(results, metric) == value(again, metric)
    assert value(results, "gated") == 50.0
    assert value(results, "unparsed") == 0.0
    single = {r.metric: r.per_sample for r in results}["rougeL@0.5"]
    assert single["room0|0|chair"] == pytest.approx(100.0)
    # "sos eos" against "sos a red chair . eos" (2 of 6) and "sos it is red . eos" (2 of 6): precision 1, recall 1/3.
    assert single["room0|1|chair"] == pytest.approx(100 * 2.44 * (1 / 3) / (1 / 3 + 1.44))
    assert "meteor@0.5" not in {r.metric for r in results}


def test_reference_rouge_is_the_inflated_one(make_index, member, record, box):
    index = make_index([record("room0", ["chair", "chair"], proposals=[box(0.0), box(10.0)])], file_of(*ENTRIES))
    scan2cap = member("scan2cap", meteor=False)
    samples = scan2cap.samples(index, "test")
    results = scan2cap.score(samples, [Answer(text="A blue lamp. ")] * 2, index)
    # Against "The blue chair, by the door.": ten words with sos and eos and one empty string after each mark counted.
    single = {r.metric: r.per_sample for r in results}
    clean, inflated = (single[m]["room0|0|chair"] for m in ("rougeL@0.5", "rougeL_reference@0.5"))
    # sos a blue lamp . eos / sos the blue chair , by the door . eos: common sos blue . eos
    precision, recall = 4 / 6, 4 / 10
    assert clean == pytest.approx(100 * 2.44 * precision * recall / (recall + 1.44 * precision))
    assert inflated > clean


def test_official_rules_are_scored_beside_ours(make_index, member, record, box, value):
    """References are the file's tokens, at most 30 words of them and of the candidate, and the gate is above 0.5."""
    long = " ".join(f"w{i}" for i in range(40)) + "."
    # Object 1's proposal is twice as long as it, less a micrometre: IoU a little above one half.
    proposals = [box(0.0), (10.0, 0.0, 0.0, 2.0 - 1e-6, 1.0, 1.0)]
    index = make_index(
        [record("room0", ["chair", "chair"], proposals=proposals)],
        file_of(entry("0", "0", long), entry("1", "0", "It is red.")),
    )
    scan2cap = member("scan2cap", meteor=False, official=True)
    samples = scan2cap.samples(index, "test")
    assert samples[0].metadata["tokens"] == [" ".join(f"w{i}" for i in range(30))]
    assert samples[1].input_box is not None
    assert samples[1].metadata["iou"] > 0.5
    results = scan2cap.score(samples, [Answer(text=long), Answer(text="It is red.")], index)
    single = {r.metric: r.per_sample for r in results}
    assert single["rougeL_official@0.5"]["room0|0|chair"] == pytest.approx(100.0)
    assert value(results, "gated_official") == 0.0
    assert {"cider_official@0.5", "bleu4_official@0.5", "rougeL_official@0.5"} <= set(single)


def test_an_overlap_of_just_one_half_is_gated_officially_only(make_index, member, record, box, value):
    index = make_index([record("room0", ["chair", "chair"], proposals=[box(0.0), box(10.0)])], file_of(*ENTRIES))
    scan2cap = member("scan2cap", meteor=False, official=True)
    samples = scan2cap.samples(index, "test")
    samples[0].metadata["iou"] = 0.5
    results = scan2cap.score(samples, [Answer(text="It is red."), Answer(text="a chair")], index)
    assert value(results, "gated") == 0.0
    assert value(results, "gated_official") == 50.0
    single = {r.metric: r.per_sample for r in results}
    assert single["rougeL@0.5"]["room0|1|chair"] == pytest.approx(100.0)
    assert single["rougeL_official@0.5"]["room0|1|chair"] < 60.0


def test_official_rules_are_left_out_unless_asked_for(make_index, member, record, box):
    index = make_index([record("room0", ["chair", "chair"], proposals=[box(0.0)])], file_of(*ENTRIES))
    scan2cap = member("scan2cap", meteor=False)
    results = scan2cap.score(scan2cap.samples(index, "test"), [Answer(), Answer(text="a")], index)
    assert not [r.metric for r in results if "official" in r.metric]


def test_official_rules_need_the_tokens_of_the_file(make_index, member, record):
    bare = {k: v for k, v in ENTRIES[0].items() if k != "token"}
    index = make_index([record("room0", ["chair", "chair"])], file_of(bare))
    with pytest.raises(AnnotationError, match="key 'token' is missing"):
        member("scan2cap", official=True).samples(index, "test")
