"""Annotations and scenes that do not belong together: refused with scan, file and entry, or left out and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scannet_files import write_release
from test_bench_bad_input import ENTRIES, SCENE_KEY, files_of

from pipeline.__main__ import main
from pipeline.benchmarks._prepared import annotation_notes
from pipeline.core import registry
from pipeline.core.errors import AnnotationError
from pipeline.datasets.base import Dataset
from pipeline.scenes.index import SceneIndex, write_index
from pipeline.study.config import read_config
from pipeline.study.specs import Specs

ROOT = Path(__file__).parents[3]
KINDS = sorted(ENTRIES)
NAMES_OBJECTS = {"scanrefer": "object_id", "scan2cap": "object_id", "multi3drefer": "object_ids", "scanqa": "object_ids"}
IDS = {"scanrefer": "ann_id", "scan2cap": "ann_id", "multi3drefer": "ann_id", "scanqa": "question_id", "vsibench": "id"}
VAL = "scene0011_00"


def entries(kind, **changes):
    """A good entry, then one with these changes under an id of its own."""
    return [ENTRIES[kind], ENTRIES[kind] | {IDS.get(kind, "question_id"): 5} | changes]


def read(benchmark, index, split):
    return benchmark.training_samples(index) if split == "train" else benchmark.samples(index, split)


@pytest.fixture
def prepared(make_index, record, tmp_path):
    """``prepared(kind, split, entries, skip)``: an index of a dataset that has the option skip_unmatched_annotations."""

    def made(kind, split, given, skip):
        index = make_index([record("room0", ["chair"] * 2, split=split)], {kind: {split: files_of(kind, *given)}})
        annotations = index.content["annotations"]
        records = list(index)
        write_index(tmp_path, records, dataset="hand", root=".", annotations=annotations, spec="0", skip_unmatched=skip)
        return SceneIndex(tmp_path / "manifest.json")

    return made


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_entries_about_a_scene_that_is_not_there(prepared, member, kind, split):
    given = entries(kind, **{SCENE_KEY.get(kind, "scene_id"): "room7"})
    refused = prepared(kind, split, given, False)
    with pytest.raises(AnnotationError, match=r"1 of 2 entries.*room7") as caught:
        annotation_notes(refused)
    assert ", entry 1" in str(caught.value.where)
    assert "datasets.hand.skip_unmatched_annotations: true" in str(caught.value.fix)
    assert [note.count for note in annotation_notes(refused, [kind])] == [1]  # the benchmark's own skip_missing_scenes
    index = prepared(kind, split, given, True)
    notes = annotation_notes(index)
    assert [(note.kind, note.count, note.out_of, note.scenes) for note in notes] == [
        ("annotations_of_missing_scenes", 1, 2, ("room7",))
    ]
    assert {sample.scene_id for sample in read(member(kind), index, split)} == {"room0"}


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("kind", sorted(NAMES_OBJECTS))
def test_entries_that_name_an_object_that_is_not_there(prepared, member, kind, split):
    key = NAMES_OBJECTS[kind]
    given = entries(kind, **{key: "7" if key == "object_id" else [0, 7]}, eval_type="mt")
    with pytest.raises(AnnotationError, match=r"object 7 is not in scene room0 \(1 of 2 entries") as caught:
        annotation_notes(prepared(kind, split, given, False))
    assert ", entry 1" in str(caught.value.where)
    assert "skip_unmatched_annotations: true" in str(caught.value.fix)
    index = prepared(kind, split, given, True)
    notes = annotation_notes(index)
    assert [(note.kind, note.count, note.scenes) for note in notes] == [("annotations_of_missing_objects", 1, ("room0",))]
    found = read(member(kind), index, split)
    assert found == read(member(kind), prepared(kind, split, given[:1], True), split)


@pytest.mark.parametrize("kind", KINDS)
def test_files_about_other_scenes_only_are_said_and_not_used(prepared, member, kind):
    """Nothing is left to ask: preparing goes on (the study may not ask it), whoever asks is refused."""
    index = prepared(kind, "val", [ENTRIES[kind] | {SCENE_KEY.get(kind, "scene_id"): "room7"}], True)
    assert [note.kind for note in annotation_notes(index)] == ["annotations_of_missing_scenes", "no_annotations"]
    with pytest.raises(AnnotationError, match="has no entry for split 'val'"):
        member(kind).samples(index, "val")


def test_a_split_without_scenes_is_not_compared(make_index, record):
    index = make_index([record("room0", ["chair"])], {"scanrefer": {"train": files_of("scanrefer", ENTRIES["scanrefer"])}})
    assert annotation_notes(index) == []


def _without_a_described_object(root: Path) -> int:
    """The validation scan loses the last object that ScanRefer describes, as older aggregation files do; its id."""
    described = json.loads((root / "annotations/ScanRefer_filtered_val.json").read_text())
    lost = max(int(entry["object_id"]) for entry in described)
    path = root / f"scans/{VAL}/{VAL}.aggregation.json"
    content = json.loads(path.read_text())
    content["segGroups"] = [group for group in content["segGroups"] if group["objectId"] != lost]
    path.write_text(json.dumps(content))
    return lost


def _prepare(out: Path, options: dict) -> int:
    spec = json.dumps({"dataset": {"name": "scannet", "kind": "scannet", "options": options}})
    return main(["prepare", "--spec", spec, "--out", str(out / "manifest.json")])


def test_scannet_v1_aggregation(tmp_path, capsys):
    """Found by `prepare`; leaving the entries out keeps the scans that are made, and takes out exactly these entries."""
    options = write_release(tmp_path / "scannet") | {"train_scenes": None, "test_scenes": None}
    lost, out = _without_a_described_object(tmp_path / "scannet"), tmp_path / "out"
    assert _prepare(out, options) == 2
    said = capsys.readouterr().err
    assert f"object {lost} is not in scene {VAL}" in said
    assert f"where:   {tmp_path}/scannet/annotations/ScanRefer_filtered_val.json, entry " in said, "not the copy in results/"
    assert "datasets.scannet.skip_unmatched_annotations: true" in said
    assert not (out / "manifest.json").exists(), "what was refused is not prepared"
    marker = out / "posed_images" / VAL / "scene.json"
    made = marker.stat().st_mtime_ns

    assert _prepare(out, options | {"skip_unmatched_annotations": True}) == 0
    assert marker.stat().st_mtime_ns == made, "finished scans are kept"
    said, index = capsys.readouterr().out, SceneIndex(out / "manifest.json")
    ids = [int(e["object_id"]) for e in json.loads((tmp_path / "scannet/annotations/ScanRefer_filtered_val.json").read_text())]
    kept = [found for found in ids if found != lost]
    line = f"{len(ids) - len(kept)} of {len(ids)} entries of scanrefer, split 'val', name an object that their scene does not"
    assert f"warning: scannet: {line} have: left out ({VAL})" in said
    samples = registry.create("benchmarks", {"name": "scanrefer", "kind": "scanrefer", "options": {}}).samples(index, "val")
    assert [sample.target_ids for sample in samples] == [(found,) for found in kept]


def test_a_benchmark_that_skips_missing_scenes_changes_no_scene(tmp_path):
    """The workflow tells `prepare` which benchmarks do; their options are theirs, and scenes made before stay."""
    (tmp_path / "scans.yaml").write_text("datasets: {scannet: {}}")
    (tmp_path / "skip.yaml").write_text("benchmarks: {vsibench: {skip_missing_scenes: true}}")
    files = [ROOT / "config.yaml", tmp_path / "scans.yaml", tmp_path / "skip.yaml"]
    plain, told = Specs(read_config(files[:2])), Specs(read_config(files))
    before, after = json.loads(plain.prepare("scannet")), json.loads(told.prepare("scannet"))
    assert after == before | {"skip_missing_scenes": ["vsibench"]}
    assert Dataset.digests(before) == Dataset.digests(after)
    assert plain.prepare("rooms") == told.prepare("rooms"), "rooms are asked about themselves only"


def test_another_selection_of_finished_scans_keeps_them(tmp_path):
    """One scan first, all of them later, another manifest each time."""
    options, out = write_release(tmp_path / "scannet"), tmp_path / "out"
    assert _prepare(out, options | {"only": ["scene0000_00"], "benchmarks": []}) == 0
    marker, manifest = out / "posed_images/scene0000_00/scene.json", out / "manifest.json"
    made, first = marker.stat().st_mtime_ns, SceneIndex(manifest)
    assert _prepare(out, options | {"only": ["scene9999_00"]}) == 2
    assert not manifest.exists(), "the manifest of other options would pass for this one's"
    assert _prepare(out, options) == 0
    assert (marker.stat().st_mtime_ns, list(first.records), len(SceneIndex(manifest).records)) == (made, ["scene0000_00"], 4)
    assert _prepare(out, options | {"frames": {"count": 2}}) == 0
    assert marker.stat().st_mtime_ns != made, "other frames are other scenes"
