"""ScanRefer: reading, unique/multiple, the answer rule and Acc@t, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.errors import AnnotationError
from pipeline.scenes.types import Answer, ModelOutput, Sample


def entry(scene="room0", object_id="0", ann_id="0", name="chair", description="The red chair."):
    return {"scene_id": scene, "object_id": object_id, "object_name": name, "ann_id": ann_id, "description": description}


def file_of(*entries, split="test"):
    return {"scanrefer": {split: {f"ScanRefer_filtered_{split}.json": list(entries)}}}


def test_samples_in_file_order_with_ids_and_subsets(make_index, member, record):
    index = make_index(
        [record("room0", ["chair", "chair", "lamp"]), record("room1", ["chair"])],
        file_of(entry(object_id="2", name="lamp"), entry("room1"), entry(object_id=1, ann_id="4"), entry(ann_id="7")),
    )
    samples = member("scanrefer").samples(index, "test")
    assert [s.sample_id for s in samples] == ["room0|2|0", "room1|0|0", "room0|1|4", "room0|0|7"]
    assert [s.subsets for s in samples] == [("unique",), ("unique",), ("multiple",), ("multiple",)]
    assert [s.target_ids for s in samples] == [(2,), (0,), (1,), (0,)]
    assert not any(s.any_number for s in samples)


def test_unique_counts_annotated_objects_of_own_categories_and_described_ones_on_request(make_index, member, record):
    index = make_index([record("room0", ["chair", "chair"])], file_of(entry()))
    assert member("scanrefer").samples(index, "test")[0].subsets == ("multiple",)
    assert member("scanrefer", unique_among="described").samples(index, "test")[0].subsets == ("unique",)


def test_official_rule_for_nyu40_classes(make_index, member, record):
    """Described objects count; classes outside the 17 are one class "others"; several descriptions are one object."""
    classes = [{"nyu40class": c} for c in ("lamp", "box", "chair", "chair", "table")]
    index = make_index(
        [record("room0", ["floor lamp", "box", "armchair", "office chair", "desk"], attributes=classes)],
        file_of(
            entry(object_id="0", name="floor_lamp"),
            entry(object_id="1", name="box"),
            entry(object_id="2", name="armchair"),
            entry(object_id="2", name="armchair", ann_id="1"),
            entry(object_id="4", name="desk"),
        ),
    )
    subsets = [s.subsets[0] for s in member("scanrefer").samples(index, "test")]
    # lamp and box are both "others"; the second chair is not described, so the armchair is unique.
    assert subsets == ["multiple", "multiple", "unique", "unique", "unique"]


def test_the_official_table_sets_targets_of_class_others_apart(make_index, member, record, box, value):
    """Worked by hand: lamp, box and wall are "others" officially, for 3DRS wall is a class; the chair is unique for both."""
    classes = [{"nyu40class": c} for c in ("lamp", "otherprop", "wall", "chair")]
    index = make_index(
        [record("room0", ["floor lamp", "box", "wall", "chair"], attributes=classes)],
        file_of(*(entry(object_id=str(i), name=n) for i, n in enumerate(("floor_lamp", "box", "wall", "chair")))),
    )
    scanrefer = member("scanrefer")
    samples = scanrefer.samples(index, "test")
    others = ("multiple", "in_others", "multiple_in_others")
    assert [s.subsets for s in samples] == [
        (*others, "multiple_reference"),
        (*others, "multiple_reference"),
        (*others, "unique_reference"),
        ("unique", "not_in_others", "unique_not_in_others", "unique_reference"),
    ]
    answers = [Answer(), Answer(), Answer(boxes=(box(20.0),)), Answer(boxes=(box(0.0),))]
    results = scanrefer.score(samples, answers, index)
    assert value(results, "acc@0.5", "multiple") == value(results, "acc@0.5", "in_others") == pytest.approx(100 / 3)
    assert value(results, "acc@0.5", "unique") == value(results, "acc@0.5", "unique_not_in_others") == 0.0
    assert value(results, "acc@0.5", "unique_reference") == 50.0
    assert value(results, "acc@0.5", "multiple_reference") == 0.0


def test_the_split_is_that_of_the_official_lookup_on_random_files(make_index, member, record):
    """Against the two passes of the official data set class, written out by names as it goes by them."""
    rng = np.random.default_rng(0)
    names = ["chair", "sofa", "lamp", "box", "wall", "shower curtain"]
    scenes = {f"room{i}": rng.choice(names, 6).tolist() for i in range(30)}
    rows = [(s, int(o), a) for s in scenes for o in rng.permutation(6)[: rng.integers(1, 7)] for a in range(rng.integers(1, 4))]
    index = make_index(
        [record(s, found, attributes=[{"nyu40class": n} for n in found]) for s, found in scenes.items()],
        file_of(*(entry(s, str(o), str(a), scenes[s][o].replace(" ", "_")) for s, o, a in rows)),
    )
    label = {name: name if name in ("chair", "sofa", "shower curtain") else "others" for name in names}
    seen = {(s, o): label[scenes[s][o]] for s, o, _ in rows}
    for sample, (s, o, _) in zip(member("scanrefer").samples(index, "test"), rows, strict=True):
        times = sum(scene == s and kind == seen[s, o] for (scene, _), kind in seen.items())
        assert sample.subsets[0] == ("unique" if times == 1 else "multiple")
        assert sample.subsets[1] == ("in_others" if seen[s, o] == "others" else "not_in_others")


def test_a_box_of_an_unparsed_answer_is_no_answer(make_index, member, record, box, value):
    index = make_index([record("room0", ["chair"])], file_of(entry()))
    scanrefer = member("scanrefer")
    results = scanrefer.score(scanrefer.samples(index, "test"), [Answer(boxes=(box(0.0),), parsed=False)], index)
    assert value(results, "acc@0.25") == 0.0
    assert value(results, "unparsed") == 100.0


def test_scenes_outside_the_split_are_refused_or_skipped(make_index, member, record, capsys):
    records = [record("room0", ["chair"]), record("room1", ["chair"], split="train")]
    index = make_index(records, file_of(entry(), entry("room1"), entry("room2")))
    with pytest.raises(AnnotationError, match=r"2 of 3 entries.*2 scenes.*'test'.*room1, room2") as caught:
        member("scanrefer").samples(index, "test")
    assert "skip_missing_scenes" in str(caught.value)
    kept = member("scanrefer", skip_missing_scenes=True).samples(index, "test")
    assert [s.scene_id for s in kept] == ["room0"]
    assert "2 of 3 entries" in capsys.readouterr().err


SAMPLE = Sample("room0|0|0", "room0", "scanrefer", "grounding", target_ids=(0,))
BOXES = np.array([[0.0, 0, 0, 1, 1, 1], [5, 0, 0, 1, 1, 1]])


def test_parse_takes_the_best_real_box_even_if_the_zero_target_wins(member):
    output = ModelOutput(probabilities=np.array([0.1, 0.2, 0.7]), boxes=BOXES)
    answer = member("scanrefer").parse(SAMPLE, output)
    assert answer.boxes == ((5.0, 0, 0, 1, 1, 1),)
    assert answer.scores == (0.2,)
    assert answer.parsed


def test_parse_tie_takes_the_first(member):
    output = ModelOutput(probabilities=np.array([0.4, 0.4, 0.2]), boxes=BOXES)
    assert member("scanrefer").parse(SAMPLE, output).boxes[0][0] == 0.0


def test_scene_without_candidates_is_a_miss(member):
    answer = member("scanrefer").parse(SAMPLE, ModelOutput(probabilities=np.array([1.0]), boxes=np.zeros((0, 6))))
    assert answer == Answer()


def test_scores_by_hand(make_index, member, record, box, value):
    """Four samples: exact hit, IoU 1/3, a miss, unparsed."""
    proposals = [box(0.0), box(10.5), box(33.0)]
    index = make_index(
        [record("room0", ["chair", "lamp", "lamp", "bed"], proposals=proposals)],
        file_of(*(entry(object_id=str(i), name=n) for i, n in enumerate(["chair", "lamp", "lamp", "bed"]))),
    )
    scanrefer = member("scanrefer")
    samples = scanrefer.samples(index, "test")
    answers = [Answer(boxes=(box(0.0),)), Answer(boxes=(box(10.5),)), Answer(boxes=(box(33.0),)), Answer(parsed=False)]
    results = scanrefer.score(samples, answers, index)
    assert value(results, "acc@0.25") == 50.0  # the half-shifted cube: 0.5 / 1.5
    assert value(results, "acc@0.5") == 25.0
    assert value(results, "acc@0.25", "unique") == 50.0  # chair and bed
    assert value(results, "acc@0.25", "multiple") == 50.0
    assert value(results, "acc@0.5", "multiple") == 0.0
    assert value(results, "unparsed") == 25.0
    # Of three candidates one fits the chair, one the first lamp at 0.25, none the others.
    assert value(results, "acc@0.25", reference="chance") == pytest.approx(100 * (1 / 3 + 1 / 3) / 4)
    assert value(results, "acc@0.5", reference="chance") == pytest.approx(100 * (1 / 3) / 4)
    assert value(results, "acc@0.25", reference="oracle") == 50.0
    by_name = {(r.metric, r.subset, r.reference): r for r in results}
    assert by_name["acc@0.25", "unique", ""].n == 2
    assert by_name["acc@0.25", "all", ""].per_sample["room0|1|0"] == 100.0
    assert by_name["acc@0.25", "all", ""].replicates.shape == (1000,)
