"""The command ``extract`` on a small dataset: shards, splits, resume after an error, derived teachers, faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_rooms import make_scene, write_dataset

from pipeline.__main__ import main
from pipeline.core.registry import create
from pipeline.features.store import FeatureReader
from pipeline.scenes.index import SceneIndex

GEOMETRY = {"name": "geometry", "kind": "geometry", "options": {"grid_rows": 3, "grid_cols": 4}}
SHUFFLED = {"name": "shuffled", "kind": "shuffled", "options": {"of": "geometry", "seed": 1}}


@pytest.fixture
def dataset(tmp_path: Path) -> SceneIndex:
    splits = ["train"] * 5 + ["val", "test"]
    scenes = [make_scene(f"box{i}", views=3 if i == 4 else 2, size=(24, 32), split=split) for i, split in enumerate(splits)]
    return write_dataset(tmp_path / "scenes", scenes)


def extract(index: SceneIndex, out: Path, teacher: dict[str, Any], *more: str, **changes: Any) -> int:
    spec = {"dataset": "boxes", "teacher": teacher, "shard": 0, "shards": 1, "splits": ["train"]}
    spec |= {"store": {"dtype": "float32"}, "code": "x"} | changes
    return main(["extract", "--spec", json.dumps(spec), "--scenes", str(index.path), "--out", str(out), *more])


def test_features_in_the_store_are_the_teachers(dataset: SceneIndex, tmp_path: Path) -> None:
    out = tmp_path / "features" / "manifest.json"
    assert extract(dataset, out, GEOMETRY) == 0
    reader, teacher = FeatureReader([out]), create("teachers", GEOMETRY)
    assert reader.scene_ids == tuple(f"box{i}" for i in range(5))
    for scene_id in reader.scene_ids:
        found, scene = reader.read(scene_id, dataset.records[scene_id].frame_ids), dataset.load(scene_id)
        expected = teacher.encode(scene)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
    run = json.loads(out.with_name("run.json").read_text())
    assert run["encoded_scenes"] == 5
    assert "wall_s" not in json.loads(out.read_text())


def test_shards_cover_the_splits(dataset: SceneIndex, tmp_path: Path) -> None:
    manifests = []
    for shard in range(2):
        manifests.append(tmp_path / f"shard{shard}" / "manifest.json")
        assert extract(dataset, manifests[-1], GEOMETRY, shard=shard, shards=2, splits=["train", "test"]) == 0
    assert FeatureReader(manifests).scene_ids == ("box0", "box1", "box2", "box3", "box4", "box6")


def test_splits_without_any_scene_are_refused(tmp_path: Path, capsys) -> None:
    """A dataset of the split test alone: an empty store would look finished."""
    index = write_dataset(tmp_path / "scenes", [make_scene("box", views=2, size=(24, 32), split="test")])
    assert extract(index, tmp_path / "features" / "manifest.json", GEOMETRY) == 2
    said = capsys.readouterr().err
    assert "has no scene in the splits train" in said
    assert "allowed: test" in said
    assert "features.splits" in said


def test_a_broken_frame_stops_with_a_message_and_keeps_what_is_done(dataset: SceneIndex, tmp_path: Path, capsys) -> None:
    out = tmp_path / "features" / "manifest.json"
    frame = dataset.root / "box3" / f"{dataset.records['box3'].frame_ids[1]}.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:100])
    assert extract(dataset, out, GEOMETRY) == 2
    assert str(frame) in capsys.readouterr().err
    assert not out.exists()
    frame.write_bytes(whole)
    assert extract(dataset, out, GEOMETRY) == 0
    encoded = json.loads(out.with_name("run.json").read_text())["encoded_scenes"]
    assert 0 < encoded < 5
    before = out.read_bytes()
    assert extract(dataset, out, GEOMETRY) == 0
    assert json.loads(out.with_name("run.json").read_text())["encoded_scenes"] == 0
    assert out.read_bytes() == before


def test_shuffled_is_a_view_of_other_scenes(dataset: SceneIndex, tmp_path: Path) -> None:
    source, out = tmp_path / "geometry" / "manifest.json", tmp_path / "shuffled" / "manifest.json"
    extract(dataset, source, GEOMETRY)
    assert extract(dataset, out, SHUFFLED, "--source", str(source)) == 0
    assert not (out.parent / "features.zarr").exists()
    reader, direct = FeatureReader([out]), FeatureReader([source])
    assert reader.scene_ids == direct.scene_ids
    chosen = json.loads(out.read_text())["scenes"]
    assert sorted(entry["source"] for entry in chosen.values()) == sorted(chosen)
    for scene_id, entry in chosen.items():
        assert entry["source"] != scene_id
        found = reader.read(scene_id, dataset.records[scene_id].frame_ids).tokens
        other = direct.read(entry["source"], dataset.records[entry["source"]].frame_ids).tokens
        np.testing.assert_array_equal(found, other[[v % len(other) for v in range(len(found))]])


def test_mistakes_are_told(dataset: SceneIndex, tmp_path: Path, capsys) -> None:
    out = tmp_path / "features" / "manifest.json"
    assert extract(dataset, out, {"name": "none", "kind": "none", "options": {}}) == 2
    assert "no features to extract" in capsys.readouterr().err
    assert extract(dataset, out, SHUFFLED) == 2
    assert "--source" in capsys.readouterr().err
    source = tmp_path / "geometry" / "manifest.json"
    extract(dataset, source, GEOMETRY)
    assert extract(dataset, out, SHUFFLED, "--source", str(source), splits=["val"]) == 2
    assert "cannot be shuffled among 1" in capsys.readouterr().err
    assert extract(dataset, out, SHUFFLED, "--source", str(source), splits=["train", "test"]) == 2


def test_wrong_weights_stop_before_the_first_scene(dataset: SceneIndex, tmp_path: Path, capsys) -> None:
    out, checkpoint = tmp_path / "features" / "manifest.json", tmp_path / "model.safetensors"
    vggt = {"name": "vggt_1b", "kind": "vggt", "options": {"checkpoint": str(checkpoint)}}
    for content, message in ((None, "do not exist"), (b"cut off", "cannot be read")):
        if content is not None:
            checkpoint.write_bytes(content)
        assert extract(dataset, out, vggt) == 2
        said = capsys.readouterr().err
        assert message in said
        assert "teachers.vggt_1b.checkpoint" in said
        assert "Traceback" not in said
    assert not out.parent.exists()


def test_weights_that_do_not_fit_the_device_are_told(dataset: SceneIndex, tmp_path: Path, capsys, monkeypatch) -> None:
    """Pretended shortage, as on a GPU that another job fills."""

    def full(*_: Any) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 16.00 MiB\nmore of it")

    monkeypatch.setattr("pipeline.teachers.geometry.GeometryTeacher.load", full)
    assert extract(dataset, tmp_path / "features" / "manifest.json", GEOMETRY) == 2
    said = capsys.readouterr().err
    assert "memory ran out while the weights of teacher 'geometry' were being loaded (cpu)" in said
    assert "CUDA out of memory. Tried to allocate 16.00 MiB\n" in said
    assert "nvidia-smi" in said


def test_a_store_of_another_spec_is_kept_when_finished_and_made_anew_without_its_manifest(
    dataset: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Snakemake removes the manifest before it runs the job again."""
    out = tmp_path / "features" / "manifest.json"
    assert extract(dataset, out, GEOMETRY) == 0
    before = out.read_bytes()
    finer = GEOMETRY | {"options": {"grid_rows": 6, "grid_cols": 4}}
    assert extract(dataset, out, finer) == 2
    said = capsys.readouterr().err
    assert "a finished store of another spec is here: 5 scenes" in said
    assert f"rm {out}" in said
    assert out.read_bytes() == before
    FeatureReader([out]).read("box0", dataset.records["box0"].frame_ids)
    out.unlink()
    assert extract(dataset, out, finer, "--readers", "2", "--in-flight", "1") == 0
    assert json.loads(out.with_name("run.json").read_text())["encoded_scenes"] == 5
    found = FeatureReader([out]).read("box0", dataset.records["box0"].frame_ids)
    assert found.tokens.shape[1:3] == (6, 4)
