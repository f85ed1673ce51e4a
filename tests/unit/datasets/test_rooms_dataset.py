"""The dataset `rooms` as files: reproducible, resumable, readable by everything that follows."""

from __future__ import annotations

import argparse
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.commands import prepare
from pipeline.core import registry
from pipeline.core.errors import ConfigError, EnvironmentFaultError
from pipeline.datasets.rooms import writers
from pipeline.scenes.geometry import unproject
from pipeline.scenes.index import SceneIndex

SMALL = {"train": 2, "val": 1, "test": 1, "views": 2, "width_px": 48, "height_px": 32}


def make(folder: Path, *, threads: int = 1, name: str = "rooms", **options: int) -> SceneIndex:
    registry.create("datasets", {"name": name, "kind": "rooms", "options": SMALL | options}).prepare(folder, threads=threads)
    return SceneIndex(folder / "manifest.json")


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run_command(folder: Path, **options: int) -> None:
    spec = {"dataset": {"name": "rooms", "kind": "rooms", "options": SMALL | options}, "code": "x"}
    prepare.run(argparse.Namespace(spec=spec, threads=1, gpus=0, out=folder / "manifest.json"))


def test_shared_rooms_are_whole(tiny_rooms: SceneIndex) -> None:
    assert [len(tiny_rooms.split(s)) for s in ("train", "val", "test")] == [6, 2, 3]
    for record in tiny_rooms:
        scene = tiny_rooms.load(record.scene_id)
        assert scene.rgb.shape == (4, 96, 128, 3)
        assert scene.depth_m.shape == (4, 96, 128)
        assert scene.depth_m.max() < 8.1
        assert 0.0 < (scene.depth_m == 0).mean() < 0.5
        assert [o.object_id for o in record.objects] == list(range(len(record.objects)))
        assert (record.proposals is None) == (record.split == "train")
        assert {o.attributes["color"] for o in record.objects}


def test_depth_poses_and_boxes_agree(tiny_rooms: SceneIndex) -> None:
    """Nearly every object has measured points inside its box, read back from the files."""
    found = []
    for record in tiny_rooms:
        scene = tiny_rooms.load(record.scene_id)
        points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
        cloud = points[valid]
        for item in record.objects:
            box = np.array(item.box)
            found.append(((np.abs(cloud - box[:3]) <= box[3:] / 2 + 0.02).all(1)).sum() > 10)
    assert np.mean(found) > 0.9


def test_pose_files_equal_the_manifest(tiny_rooms: SceneIndex) -> None:
    record = tiny_rooms.split("test")[0]
    for frame, pose in zip(record.frame_ids, record.world_from_camera, strict=True):
        np.testing.assert_allclose(np.loadtxt(tiny_rooms.root / record.scene_id / f"{frame}.txt"), pose, atol=1e-7)
    matrix = np.loadtxt(tiny_rooms.root / record.scene_id / "depth_intrinsic.txt")
    np.testing.assert_allclose(matrix[:3, :3], record.depth_intrinsics, atol=1e-6)


def test_annotation_files_have_official_names(tiny_rooms: SceneIndex) -> None:
    for split in ("train", "val", "test"):
        for benchmark in ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"):
            paths = tiny_rooms.annotation_files(benchmark, split)
            assert all(p.is_file() for p in paths)
        names = [p.name for p in tiny_rooms.annotation_files("sqa3d", split)]
        assert names == [f"v1_balanced_questions_{split}_scannetv2.json", f"v1_balanced_sqa_annotations_{split}_scannetv2.json"]
        assert tiny_rooms.annotation_files("scan2cap", split)[0].name == f"ScanRefer_filtered_{split}.json"
    assert tiny_rooms.annotation_files("view_qa", "train")[0].name == "view_qa_train.json"
    assert "val" not in tiny_rooms.content["annotations"]["view_qa"]


def test_same_seed_same_files_whatever_the_name(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", name="other")
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert first.pop("manifest.json") != second.pop("manifest.json")
    assert first == second


def test_more_rooms_leave_the_first_ones_as_they_were(tmp_path: Path) -> None:
    few, many = make(tmp_path / "a"), make(tmp_path / "b", train=4)
    for record in few:
        assert many.records[record.scene_id].checksum == record.checksum


def test_seeds_and_splits_share_nothing(tmp_path: Path) -> None:
    checksums = [r.checksum for seed in (0, 1) for r in make(tmp_path / str(seed), seed=seed)]
    assert len(set(checksums)) == len(checksums) == 8


def test_workers_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a")
    monkeypatch.setattr("pipeline.datasets.rooms.SPAWN_FROM_ROOMS", 2)
    make(tmp_path / "b", threads=2)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_other_options_start_again(tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    run_command(folder)
    run_command(folder, seed=3, train=1)
    make(tmp_path / "fresh", seed=3, train=1)
    ours = {k: v for k, v in files(folder).items() if k.endswith((".jpg", ".png")) or "annotations" in k}
    assert ours == {k: v for k, v in files(tmp_path / "fresh").items() if k in ours}
    assert not (folder / "posed_images" / "room_train_00001").exists()


def test_verb_writes_manifest_and_run_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(tmp_path / "rooms")
    assert "4 scenes" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "rooms" / "manifest.json").read_text())
    record = json.loads((tmp_path / "rooms" / "run.json").read_text())
    assert manifest["spec"] == record["spec"]
    assert record["scenes"] == 4
    first = (tmp_path / "rooms" / "manifest.json").read_bytes()
    run_command(tmp_path / "rooms")
    assert (tmp_path / "rooms" / "manifest.json").read_bytes() == first


def test_full_disk_keeps_finished_rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, original, calls = tmp_path / "rooms", writers.make_room_files, []

    def full(job: writers.RoomJob) -> object:
        calls.append(job.place.scene_id)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(job)

    with monkeypatch.context() as patch:
        patch.setattr(writers, "make_room_files", full)
        with pytest.raises(OSError, match="No space left"):
            make(folder)
    assert not (folder / "manifest.json").exists()
    made = []
    monkeypatch.setattr(writers, "make_room_files", lambda job: made.append(job.place.scene_id) or original(job))
    make(folder)
    assert made == ["room_val_00000", "room_test_00000"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rooms"
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(EnvironmentFaultError, match="cannot write"):
        run_command(folder)
    folder.chmod(0o755)


def test_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFaultError, match="cannot make the folder"):
        run_command(tmp_path / "file" / "rooms")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train: Input should be greater than or equal to 0"),
        ({"view": 6}, "did you mean 'views'"),
        ({"train": 0, "val": 0, "test": 0}, "there is no room to make"),
        ({"objects_min": 9, "objects_max": 6}, "above objects_max"),
        ({"views": 0}, "views"),
        ({"width_px": 7}, "width_px"),
    ],
)
def test_bad_options_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.create("datasets", {"name": "rooms", "kind": "rooms", "options": options})


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    index = make(tmp_path, val=0, test=0)
    assert [r.split for r in index] == ["train", "train"]
    assert set(index.content["annotations"]["scanqa"]) == {"train"}
