"""Objects from a box file and official annotation files beside posed RGB-D: used as they are, faults named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import posed_rgbd_files as files
import pytest
from box_rooms import make_scene

from pipeline.core import registry
from pipeline.core.errors import AnnotationError
from pipeline.scenes.index import SceneIndex

SCENE = make_scene("boxes", views=2, size=(24, 32))


def prepare(root: Path, out: Path, **options: Any) -> SceneIndex:
    out.mkdir(parents=True, exist_ok=True)
    member = {"name": "mine", "kind": "posed_rgbd", "options": {"root": str(root), **options}}
    registry.create("datasets", member).prepare(out, threads=1)
    return SceneIndex(out / "manifest.json")


BOXES = {
    "in": {"objects": [{"object_id": 4, "category": "wall", "box": [2, 2.5, 1, 4, 5, 2]}], "proposals": [[2, 2, 1, 3, 3, 2]]}
}


def with_annotations(folder: Path, boxes: Any = BOXES) -> dict[str, str]:
    """A scene, its box file and a ScanRefer file -> options."""
    files.write_redwood(folder / "in", SCENE)
    (folder / "boxes.json").write_text(boxes if isinstance(boxes, str) else json.dumps(boxes))
    entry = {
        "scene_id": "in",
        "object_id": "4",
        "object_name": "wall",
        "ann_id": "0",
        "description": "the wall",
        "token": ["the"],
    }
    (folder / "texts").mkdir(exist_ok=True)
    (folder / "texts" / "ScanRefer_filtered_test.json").write_text(json.dumps([entry]))
    return {"objects": str(folder / "boxes.json"), "annotations": str(folder / "texts")}


def test_objects_and_annotations(tmp_path: Path) -> None:
    index = prepare(tmp_path / "in", tmp_path / "out", **with_annotations(tmp_path))
    record = index.records["in"]
    assert [(o.object_id, o.category, o.box) for o in record.objects] == [(4, "wall", (2, 2.5, 1, 4, 5, 2))]
    np.testing.assert_array_equal(record.candidate_boxes(), [[2, 2, 1, 3, 3, 2]])
    assert index.content["annotations"] == {
        name: {"test": ["annotations/ScanRefer_filtered_test.json"]} for name in ("scanrefer", "scan2cap")
    }
    member = registry.create("benchmarks", {"name": "scanrefer", "kind": "scanrefer", "options": {}})
    assert [s.target_ids for s in member.samples(index, "test")] == [(4,)]


def test_vsibench_needs_no_boxes(tmp_path: Path) -> None:
    """Its official file asks about scenes of ScanNet++ and ARKitScenes too, which come here as posed RGB-D."""
    files.write_redwood(tmp_path / "in", SCENE)
    row = {"id": 7, "dataset": "arkitscenes", "question_type": "room_size_estimation", "question": "How large is this room?"}
    row |= {"ground_truth": "20.1", "options": None}
    rows = [row | {"scene_name": "in"}, row | {"id": 8, "scene_name": "41069025"}]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    index = prepare(tmp_path / "in", tmp_path / "out", annotations=str(tmp_path / "texts"))
    member = {"name": "vsibench", "kind": "vsibench", "options": {"skip_missing_scenes": True}}
    (sample,) = registry.create("benchmarks", member).samples(index, "test")
    assert (sample.scene_id, sample.references) == ("in", ("20.1",))
    (tmp_path / "texts" / "test.jsonl").write_text(json.dumps(rows[0]) + "\n{")
    with pytest.raises(AnnotationError, match=r"test\.jsonl is not valid JSON"):
        prepare(tmp_path / "in", tmp_path / "out", annotations=str(tmp_path / "texts"))


def test_scanqas_hidden_questions_need_no_boxes(tmp_path: Path) -> None:
    files.write_redwood(tmp_path / "in", SCENE)
    (tmp_path / "texts").mkdir()
    row = {"scene_id": "in", "question_id": "test-in-0", "question": "What is on the table?"}
    (tmp_path / "texts" / "ScanQA_v1.0_test_wo_obj.json").write_text(json.dumps([row]))
    index = prepare(tmp_path / "in", tmp_path / "out", annotations=str(tmp_path / "texts"))
    assert index.content["annotations"] == {"scanqa": {"test": ["annotations/ScanQA_v1.0_test_wo_obj.json"]}}
    options = {"root": str(tmp_path / "in"), "annotations": str(tmp_path / "texts")}
    source = registry.create("datasets", {"name": "mine", "kind": "posed_rgbd", "options": options})
    assert source.annotates("scanqa", "test")
    assert not source.annotates("scanqa", "val")
    assert not source.annotates("sqa3d", "test")


def test_annotations_that_cannot_be_used(tmp_path: Path) -> None:
    options = with_annotations(tmp_path)
    with pytest.raises(AnnotationError, match="there is no box file"):
        prepare(tmp_path / "in", tmp_path / "out", annotations=options["annotations"])
    with pytest.raises(AnnotationError, match=r"(?s)no official annotation file.*ScanQA_v1.0_val.json"):
        prepare(tmp_path / "in", tmp_path / "out", split="val", **options)
    questions = tmp_path / "texts" / "v1_balanced_questions_test_scannetv2.json"
    questions.write_text("{}")
    with pytest.raises(AnnotationError, match=r"v1_balanced_sqa_annotations_test_scannetv2\.json is missing"):
        prepare(tmp_path / "in", tmp_path / "out", **options)
    questions.unlink()
    (tmp_path / "texts" / "ScanRefer_filtered_test.json").write_text("[{")
    with pytest.raises(AnnotationError, match="not valid JSON"):
        prepare(tmp_path / "in", tmp_path / "out", **options)


def box(**change: Any) -> dict[str, Any]:
    return {"in": {"objects": [{"object_id": 1, "category": "chair", "box": [0, 0, 0, 1, 1, 1]} | change]}}


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ("{", "not valid JSON"),
        ([], "mapping of scene ids"),
        ({"inn": {}}, "did you mean 'in'"),
        ({"in": []}, "malformed"),
        ({"in": {"boxes": []}}, "malformed"),
        (box(box=[0, 0, 0, 1, -1, 1]), "edge lengths above 0"),
        (box(box=[0, 0, 0, 1, 1]), "six finite numbers"),
        (box(box=[0, 0, float("nan"), 1, 1, 1]), "six finite numbers"),
        (box(box="large"), "six finite numbers"),
        (box(object_id=-1), "object_id is -1"),
        (box(object_id="1"), "object_id is '1'"),
        (box(category=" "), "category is ' '"),
        ({"in": {"objects": box()["in"]["objects"] * 2}}, "comes twice"),
        ({"in": {"proposals": [[0, 0, 0, 0, 1, 1]]}}, "proposal 0"),
        ({"in": {"proposals": [[10**400, 0, 0, 1, 1, 1]]}}, "proposal 0"),
        ({"in": {"proposals": 3}}, "not a list"),
        ({"in": {"objects": {}}}, "not a list"),
        ('{"in": 1' + "0" * 5000 + "}", "not valid JSON"),
    ],
)
def test_faulty_boxes_are_named(boxes: Any, message: str, tmp_path: Path) -> None:
    options = with_annotations(tmp_path, boxes)
    with pytest.raises(AnnotationError, match=message):
        prepare(tmp_path / "in", tmp_path / "out", **options)
