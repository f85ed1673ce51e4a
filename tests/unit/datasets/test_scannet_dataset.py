"""The dataset kind scannet on small scans in the released formats: what it writes, counts and resumes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scannet_files as made
from PIL import Image
from scipy import sparse

from pipeline.core import registry
from pipeline.core.errors import AnnotationError, ConfigError, DataError
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Answer, Sample

TRAIN, OTHER, VAL, TEST = made.SCANS
FRAMES = ("00000", "00002", "00006", "00008", "00010")


def test_poses_and_boxes_are_axis_aligned(scannet_index: SceneIndex) -> None:
    for scan in (TRAIN, VAL):
        record = scannet_index.records[scan]
        built, facts = made.room(scan)
        np.testing.assert_allclose(record.world_from_camera, built.poses, atol=2e-5)
        for thing in facts.things:
            np.testing.assert_allclose(record.object(thing.object_id).box, thing.box(), atol=2e-4)
            assert record.object(thing.object_id).category == thing.category


def test_frames_keep_their_numbers_and_invalid_poses_are_counted(scannet_index: SceneIndex) -> None:
    for scan in made.SCANS:
        assert scannet_index.records[scan].frame_ids == FRAMES
        counts = made.report(scannet_index)["scans"][scan]
        assert (counts["frames"], counts["invalid_poses"]) == (6, 1)


def test_scans_without_alignment_are_not_turned_and_said(
    release: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text file that lost the line must not pass unseen: its scene stands askew."""
    root, options = release
    path = root / "scans" / VAL / f"{VAL}.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    index = made.prepare(options, tmp_path / "out")
    assert f"1 scans of train and val without axisAlignment: not turned ({VAL})" in capsys.readouterr().err
    assert {scan: counts["aligned"] for scan, counts in made.report(index)["scans"].items()} == {
        TRAIN: True,
        OTHER: True,
        VAL: False,
        TEST: False,
    }
    stored = np.linalg.inv(made.alignment(VAL)) @ made.room(VAL)[0].poses
    np.testing.assert_allclose(index.records[VAL].world_from_camera, stored, atol=2e-5)


def test_pixels_are_those_of_the_stream(scannet_index: SceneIndex) -> None:
    scene = scannet_index.load(VAL)
    built, _ = made.room(VAL)
    np.testing.assert_array_equal(scene.depth_m, built.depth_mm.astype(np.float32) / 1000)
    assert scene.rgb.shape[1:3] == made.COLOR_SIZE
    for view, frame in enumerate(FRAMES):
        assert (scannet_index.root / VAL / f"{frame}.jpg").read_bytes() == made.jpeg(built.rgb[view]), "kept byte by byte"


def test_training_has_ground_truth_and_validation_has_the_first_masks(scannet_index: SceneIndex) -> None:
    assert scannet_index.records[TRAIN].proposals is None
    record = scannet_index.records[VAL]
    vertices, segments, groups = made.mesh(VAL)
    assert record.proposals is not None
    assert len(record.proposals) == len(groups)
    for group, box in zip(groups, record.proposals, strict=True):
        mine = vertices[np.isin(segments, group["segments"])]
        np.testing.assert_allclose(box[3:], np.ptp(mine, axis=0), atol=3e-5)
    assert made.report(scannet_index)["scans"][VAL]["empty_masks"] == 1
    assert scannet_index.records[TEST].objects == ()
    assert len(scannet_index.records[TEST].candidate_boxes()) > 0, "test scans have candidates too"


def test_classes_are_attributes_and_unknown_names_are_counted(scannet_index: SceneIndex) -> None:
    found = {o.category: o.attributes for record in scannet_index for o in record.objects}
    assert found["floor"] == {"nyu40id": "2", "nyu40class": "floor", "class18": "others"}
    names = {label for counts in made.report(scannet_index)["scans"].values() for label in counts["unknown_labels"]}
    assert names == ({made.UNLISTED} if made.UNLISTED in found else set())
    assert all("nyu40class" in attributes for attributes in found.values())


def test_annotations_are_the_files_unchanged(scannet_index: SceneIndex, scannet_source: tuple[Path, dict[str, Any]]) -> None:
    folder = scannet_source[0] / "annotations"
    files = {name for splits in scannet_index.content["annotations"].values() for names in splits.values() for name in names}
    assert len(files) == 10
    for name in files:
        assert (scannet_index.folder / name).read_bytes() == (folder / Path(name).name).read_bytes()
    assert "test" not in scannet_index.content["annotations"]["scanrefer"]


def test_another_annotation_file_makes_another_manifest(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Otherwise Snakemake would keep what was trained on and scored with the old one."""
    root, options = release
    before = made.prepare(options, tmp_path / "out").content["annotation_files"]
    path = root / "annotations" / "ScanQA_v1.0_val.json"
    path.write_text(path.read_text().replace("Is ", "Is  "))
    after = made.prepare(options, tmp_path / "out").content["annotation_files"]
    assert {name for name in after if after[name] != before[name]} == {"annotations/ScanQA_v1.0_val.json"}
    assert len(after) == 10


def test_exported_folders_and_streams_give_the_same_scene(
    release: tuple[Path, dict[str, Any]], scannet_index: SceneIndex, tmp_path: Path
) -> None:
    root, options = release
    folder = made.export(root, VAL)
    (root / "scans" / VAL / f"{VAL}.sens").unlink()
    again = made.prepare(options, tmp_path / "auto")
    for record in again:
        wanted = scannet_index.records[record.scene_id]
        assert record.frame_ids == wanted.frame_ids
        np.testing.assert_allclose(record.world_from_camera, wanted.world_from_camera, atol=1e-5)
        np.testing.assert_allclose(record.intrinsics, wanted.intrinsics, atol=1e-4)
        np.testing.assert_array_equal(again.load(record.scene_id).depth_m, scannet_index.load(record.scene_id).depth_m)
    assert made.report(again)["scans"][VAL]["invalid_poses"] == 1
    (folder / "00002.png").unlink()
    with pytest.raises(DataError, match=r"(?s)scan scene0011_00.*a depth frame is missing.*00002\.png"):
        made.prepare(options, tmp_path / "broken")
    with pytest.raises(DataError, match=r"(?s)source files of 3 of 4 scans are missing: scene0000_00.*posed_images"):
        made.prepare(options | {"source": "posed_images"}, tmp_path / "posed")


def test_exported_frames_without_leading_zeros_are_in_the_order_of_time(
    release: tuple[Path, dict[str, Any]], tmp_path: Path, scannet_index: SceneIndex
) -> None:
    root, options = release
    folder = made.export(root, TRAIN)
    for path in folder.glob("0*"):
        path.rename(folder / f"{int(path.stem)}{path.suffix}")
    record = made.prepare(options | {"only": [TRAIN]}, tmp_path / "a").records[TRAIN]
    assert record.frame_ids == ("0", "2", "6", "8", "10")
    np.testing.assert_allclose(record.world_from_camera, scannet_index.records[TRAIN].world_from_camera, atol=1e-5)


def test_resized_images_look_the_same_way(
    release: tuple[Path, dict[str, Any]], tmp_path: Path, scannet_index: SceneIndex
) -> None:
    options = release[1] | {"image_size": [54, 96], "only": [VAL]}
    record = made.prepare(options, tmp_path / "small").records[VAL]
    wanted = scannet_index.records[VAL]
    assert record.image_size == (54, 96)
    for axis, side in ((0, 1), (1, 0)):
        ratio = record.image_size[side] / wanted.image_size[side]
        np.testing.assert_allclose(record.intrinsics[axis, axis], wanted.intrinsics[axis, axis] * ratio)
        np.testing.assert_allclose(
            (record.intrinsics[axis, 2] + 0.5) / record.image_size[side],
            (wanted.intrinsics[axis, 2] + 0.5) / wanted.image_size[side],
        )
    np.testing.assert_array_equal(record.depth_intrinsics, wanted.depth_intrinsics)


def test_maximum_coverage_chooses_fewer_frames_the_same_every_time(
    release: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    frames = {"strategy": "max_coverage", "count": 2, "voxel_m": 0.3}
    chosen = [
        {r.scene_id: r.frame_ids for r in made.prepare(release[1] | {"frames": frames}, tmp_path / str(n), threads=1 + n)}
        for n in range(2)
    ]
    assert chosen[0] == chosen[1]
    assert all(len(ids) == 2 and ids[0] < ids[1] and set(ids) <= set(FRAMES) for ids in chosen[0].values())


def test_frame_lists_name_the_candidates(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    lists = {f"scannet/{scan}": FRAMES[1:3] for scan in made.SCANS}
    (root / "lists.json").write_text(json.dumps(lists))
    options = options | {"frame_lists": ["{root}/lists.json"]}
    assert {r.frame_ids for r in made.prepare(options, tmp_path / "a")} == {FRAMES[1:3]}
    (root / "lists.json").write_text(json.dumps(dict(list(lists.items())[1:])))
    with pytest.raises(DataError, match="frame lists do not have this scan"):
        made.prepare(options, tmp_path / "b")


def test_proposals_from_a_box_file_or_ground_truth(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    boxes = {f"scannet/{scan}": [[1, 2, 0.5, 1, 1, 1]] for scan in (VAL, TEST)}
    (root / "boxes.json").write_text(json.dumps(boxes))
    index = made.prepare(options | {"proposals": "boxes", "boxes": "{root}/boxes.json"}, tmp_path / "boxes")
    np.testing.assert_array_equal(index.records[VAL].proposals, [[1, 2, 0.5, 1, 1, 1]])
    assert index.records[TRAIN].proposals is None
    index = made.prepare(options | {"proposals": "ground_truth"}, tmp_path / "truth")
    assert index.records[VAL].proposals is None
    assert len(index.records[VAL].candidate_boxes()) == len(index.records[VAL].objects)


def test_scans_whose_files_changed_are_made_again(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Better masks under the same name, a mesh got again: the options are the same, the scenes are not."""
    root, options = release
    folder = tmp_path / "out"
    first = made.prepare(options, folder)
    path = root / "mask" / f"{VAL}.mask.npz"
    masks = sparse.load_npz(path)
    sparse.save_npz(path, masks[2:])
    assert len(made.prepare(options, folder).records[VAL].proposals) == len(first.records[VAL].proposals) - 1
    for change in (root / "scans" / OTHER / f"{OTHER}.aggregation.json", root / "scannetv2-labels.combined.tsv"):
        os.utime(change, ns=(1, 1))
        before = {scan: (folder / "posed_images" / scan / "scene.json").stat().st_mtime_ns for scan in made.SCANS}
        made.prepare(options, folder)
        after = {scan: (folder / "posed_images" / scan / "scene.json").stat().st_mtime_ns for scan in made.SCANS}
        again = {scan for scan in made.SCANS if before[scan] != after[scan]}
        assert again == ({OTHER} if OTHER in change.name else set(made.SCANS))


def test_finished_scenes_need_their_sources_no_more(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    made.prepare(options, tmp_path / "out")
    manifest = (tmp_path / "out" / "manifest.json").read_bytes()
    shutil.rmtree(root / "scans")
    shutil.rmtree(root / "mask")
    made.prepare(options, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest


def test_an_export_that_changed_is_read_again(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    options = options | {"only": [TRAIN]}
    first = made.prepare(options, tmp_path / "out").records[TRAIN]
    folder = made.export(root, TRAIN)
    (folder / "00008.txt").write_text((folder / "00010.txt").read_text())
    again = made.prepare(options, tmp_path / "out").records[TRAIN]
    assert not np.array_equal(again.world_from_camera[3], first.world_from_camera[3])


def test_scenes_only_and_annotated(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    assert [r.scene_id for r in made.prepare(options | {"only": [VAL]}, tmp_path / "a")] == [VAL]
    for path in (root / "annotations").glob("*train*.json"):
        path.write_text(path.read_text().replace(OTHER, TRAIN))
    assert [r.scene_id for r in made.prepare(options | {"scenes": "annotated"}, tmp_path / "b")] == [TRAIN, VAL]
    with pytest.raises(DataError, match=r"unknown scan 'scene0011_01', did you mean 'scene0011_00'\?"):
        made.prepare(options | {"only": ["scene0011_01"]}, tmp_path / "c")


def test_grey_and_other_colour_files_become_rgb_jpegs(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    folder = made.export(root, TRAIN)
    Image.open(folder / "00000.jpg").convert("L").save(folder / "00000.jpg")
    scene = made.prepare(options | {"only": [TRAIN]}, tmp_path / "a").load(TRAIN)
    assert scene.rgb.shape[-1] == 3


def test_plan_and_sources(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, options = release

    def member(**changes: Any) -> Any:
        return registry.create("datasets", {"name": "scannet", "kind": "scannet", "options": options | changes})

    plan = member(image_size=[54, 96]).planned()
    assert plan.scenes == {"train": 2, "val": 1, "test": 1}
    assert (plan.views, plan.image_size) == (made.VIEWS, (54, 96))
    assert all(file.path.exists() for file in member().source_files())
    assert member(root=str(tmp_path / "none"), scenes="annotated").planned().scenes == {"train": 562, "val": 141, "test": 0}
    assert not any(file.path.exists() for file in member(root=str(tmp_path / "none")).source_files())
    assert member(frames={"count": None}).planned() is None
    assert "redistributable" in member().licence


def test_the_benchmarks_score_scans_like_rooms(scannet_index: SceneIndex) -> None:
    """The same code as for rooms: the boxes of the masks are right, so pointing at them scores 100; classes are official."""
    for kind, metric in (("scanrefer", "acc@0.5"), ("scanqa", "em"), ("sqa3d", "em"), ("scan2cap", "gated")):
        options = {"meteor": False} if kind in ("scanqa", "scan2cap") else {}
        member = registry.create("benchmarks", {"name": kind, "kind": kind, "options": options})
        samples = member.samples(scannet_index, "val")
        answers = [_right_answer(sample, scannet_index) for sample in samples]
        results = {(r.metric, r.subset): r for r in member.score(samples, answers, scannet_index) if not r.reference}
        assert results[metric, "all"].value == pytest.approx(0.0 if metric == "gated" else 100.0)
        assert {s.scene_id for s in samples} == {VAL}


def _right_answer(sample: Sample, index: SceneIndex) -> Answer:
    if sample.task == "grounding":
        return Answer(boxes=(index.records[sample.scene_id].object(sample.target_ids[0]).box,))
    return Answer(text=sample.references[0])


def test_vsibench_is_taken_on_request(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    rows = [{"id": 0, "dataset": "scannet", "scene_name": VAL}, {"id": 1, "dataset": "arkitscenes", "scene_name": "41069021"}]
    path = root / "annotations" / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = made.prepare(options | {"benchmarks": ["vsibench"], "only": [VAL]}, tmp_path / "a")
    assert index.content["annotations"] == {"vsibench": {"val": ["annotations/test.jsonl"]}}
    path.write_text(json.dumps(rows[0] | {"scene_name": TRAIN}) + "\n")
    with pytest.raises(AnnotationError, match="not in the split val"):
        made.prepare(options | {"benchmarks": ["vsibench"]}, tmp_path / "b")


@pytest.mark.parametrize(("questions", "split"), [("test_w_obj", "val"), ("test_wo_obj", "test")])
def test_scanqas_hidden_questions_are_taken_on_request(
    release: tuple[Path, dict[str, Any]], tmp_path: Path, questions: str, split: str
) -> None:
    root, options = release
    scan = next(scan for scan, named in made.SCANS.items() if named == split)
    rows = [{"scene_id": scan, "question_id": f"test-{scan}-0", "question": "What is on the table?"}]
    (root / "annotations" / f"ScanQA_v1.0_{questions}.json").write_text(json.dumps(rows))
    wanted = options | {"benchmarks": ["scanqa"], "scanqa_questions": questions, "only": [scan]}
    index = made.prepare(wanted, tmp_path / "a")
    assert index.content["annotations"]["scanqa"][split] == [f"annotations/ScanQA_v1.0_{questions}.json"]
    member = registry.create("benchmarks", {"name": "scanqa", "kind": "scanqa", "options": {}})
    assert [(s.scene_id, s.references) for s in member.samples(index, split)] == [(scan, ())]


def test_scanqas_questions_about_test_scans_need_their_list(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, options = release
    with pytest.raises(ConfigError, match="name their list with test_scenes"):
        made.prepare(options | {"scanqa_questions": "test_wo_obj", "test_scenes": None}, tmp_path / "a")
