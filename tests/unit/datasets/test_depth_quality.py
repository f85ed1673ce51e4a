"""Depth that is not depth: refused when impossible, counted when doubtful, figures in the index, for every kind of dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import posed_rgbd_files as files
import pytest
import scannet_files as made
from box_rooms import make_scene, write_dataset
from PIL import Image

from pipeline.__main__ import main
from pipeline.core import registry
from pipeline.core.errors import DataError, FrameError
from pipeline.scenes.depth_quality import looked_at
from pipeline.scenes.index import SceneIndex, record_from_json, record_to_json
from pipeline.scenes.types import Scene

TRAIN, OTHER, VAL, _ = made.SCANS
SCENE = make_scene("desk", views=8)


def picture_of_depth(path: Path, mode: str) -> None:
    """What viewers export: depth scaled to 255 steps."""
    depth = np.asarray(Image.open(path)).astype(np.float64)
    Image.fromarray((depth / depth.max() * 255).astype(np.uint8)).convert(mode).save(path)


@pytest.mark.parametrize(("mode", "named"), [("L", "8 bits"), ("P", "a palette"), ("1", "1 bit"), ("RGB", "3 channels")])
def test_scannet_depth_8bit_is_refused_or_left_out(
    release: tuple[Path, dict[str, Any]], tmp_path: Path, mode: str, named: str
) -> None:
    root, options = release
    picture_of_depth(made.export(root, VAL) / "00002.png", mode)
    with pytest.raises(FrameError, match=rf"(?s)scan {VAL}: a depth image has {named}.*00002.png.*16 bits.*skip_broken"):
        made.prepare(options, tmp_path / "a")
    index = made.prepare(options | {"skip_broken": True}, tmp_path / "b")
    assert VAL not in index.records
    assert "no measurement" in made.report(index)["skipped"][VAL]


def test_scannet_depth_of_8_bits_stored_in_16(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    for path in made.export(root, VAL).glob("*.png"):
        depth = np.asarray(Image.open(path)).astype(np.float64)
        Image.fromarray((depth / depth.max() * 255).astype(np.uint16)).save(path)
    with pytest.raises(FrameError, match=r"(?s)cannot be that of a room: median 0\.1. m.*at least 0.3 m"):
        made.prepare(options | {"only": [VAL]}, tmp_path / "a")


def test_scannet_depth_blank_is_refused_or_left_out(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    for scan in (TRAIN, OTHER, VAL):
        for path in made.export(root, scan).glob("*.png"):
            Image.fromarray(np.zeros(made.DEPTH_SIZE, dtype=np.uint16)).save(path)
    with pytest.raises(FrameError, match=r"(?s)no pixel of the 5 depth images holds a measurement.*posed_images.*skip_broken"):
        made.prepare(options, tmp_path / "a")
    assert not (tmp_path / "a" / "manifest.json").exists()
    index = made.prepare(options | {"skip_broken": True}, tmp_path / "b")
    assert sorted(made.report(index)["skipped"]) == [TRAIN, OTHER, VAL]
    with pytest.raises(DataError, match="all 3 scans are broken; the first: no pixel"):
        made.prepare(options | {"skip_broken": True, "only": [TRAIN, OTHER, VAL]}, tmp_path / "c")


def test_posed_rgbd_depth_blank_names_the_source(tmp_path: Path) -> None:
    files.write_redwood(tmp_path / "in" / "desk", replace(SCENE, depth_m=np.zeros_like(SCENE.depth_m)))
    member = {"name": "mine", "kind": "posed_rgbd", "options": {"root": str(tmp_path / "in")}}
    with pytest.raises(FrameError, match=r"(?s)no pixel of the 8 depth images.*in/desk"):
        registry.create("datasets", member).prepare(tmp_path, threads=2)


def test_figures_stand_in_index_and_report_and_stay_the_same_when_resumed(
    release: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    options = release[1]
    first = made.prepare(options, tmp_path / "a")
    depth = {record.scene_id: record.depth for record in first}
    assert all(0.8 < d.valid < 1 and 0.5 < d.near_m < d.median_m < d.far_m < 8 for d in depth.values())
    assert all(d.compared > 1000 and d.agree > 0.6 and d.through < 0.05 for d in depth.values())
    assert not [note for note in first.notes if note.kind.startswith("depth")]
    assert made.report(first)["scans"][VAL]["depth"]["median_m"] == depth[VAL].median_m
    (first.path).unlink()
    again = made.prepare(options, tmp_path / "a")
    assert {record.scene_id: record.depth for record in again} == depth
    assert again.digest == first.digest


def doubtful(change: Callable[[Scene], Scene], folder: Path) -> SceneIndex:
    """A dataset of one right scene and one changed."""
    return write_dataset(folder, [make_scene("right", views=8), change(SCENE)])


def with_depth(scene: Scene, depth_m: np.ndarray) -> Scene:
    return replace(scene, depth_m=depth_m.astype(np.float32))


def with_poses(scene: Scene, poses: np.ndarray) -> Scene:
    return replace(scene, record=replace(scene.record, world_from_camera=poses))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("depth_blank", lambda s: with_depth(s, s.depth_m * (np.arange(8) != 2)[:, None, None])),
        ("depth_sparse", lambda s: with_depth(s, s.depth_m * (np.indices(s.depth_m.shape)[2] % 4 == 0))),
        ("depth_range", lambda s: with_depth(s, np.full_like(s.depth_m, 2.0))),
        ("depth_disagrees", lambda s: with_poses(s, np.roll(s.record.world_from_camera, 1, axis=0))),
        ("depth_disagrees", lambda s: with_poses(s, np.linalg.inv(s.record.world_from_camera))),
        ("depth_disagrees", lambda s: with_depth(s, s.depth_m / 3)),
    ],
)
def test_doubtful_depth_is_counted(kind: str, change: Callable[[Scene], Scene], tmp_path: Path) -> None:
    index = doubtful(change, tmp_path)
    notes = {note.kind: note for note in index.notes}
    assert (notes[kind].count, notes[kind].out_of, notes[kind].scenes) == (1, 2, ("desk",))
    assert index.records["right"].depth.agree > 0.7


def test_a_unit_of_depth_that_is_not_the_one_stated(tmp_path: Path) -> None:
    """Five times too large is doubtful, more than half beyond 25 m is refused."""
    index = doubtful(lambda s: with_depth(s, s.depth_m * 5), tmp_path / "a")
    assert "depth_range" in {note.kind for note in index.notes}
    with pytest.raises(FrameError, match=r"(?s)cannot be that of a room.*median at most 25 m.*correct the unit"):
        doubtful(lambda s: with_depth(s, s.depth_m * 20), tmp_path / "b")


def test_one_view_with_depth_among_many_is_enough_not_to_be_refused(tmp_path: Path) -> None:
    many = make_scene("many", views=20, size=(24, 32))
    assert looked_at(20) == (0, 1, 6, 7, 12, 13, 18, 19)
    lone = with_depth(many, many.depth_m * (np.arange(20) == 3)[:, None, None])
    depth = write_dataset(tmp_path, [lone]).records["many"].depth
    assert (depth.valid, depth.blank, depth.median_m, depth.agree) == (0.0, 8, None, None)
    with pytest.raises(FrameError, match="no pixel of the 20 depth images"):
        write_dataset(tmp_path / "none", [with_depth(many, many.depth_m * 0)])


def test_indexes_without_figures_are_read(tmp_path: Path) -> None:
    record = write_dataset(tmp_path, [SCENE]).records["desk"]
    entry = record_to_json(record)
    assert record_from_json(json.loads(json.dumps(entry)), where="x").depth == record.depth
    del entry["depth"]
    assert record_from_json(entry, where="x").depth is None


def test_prepare_says_figures_and_doubts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_redwood(tmp_path / "in" / "desk", with_poses(SCENE, np.roll(SCENE.record.world_from_camera, 1, axis=0)))
    spec = {"dataset": {"name": "mine", "kind": "posed_rgbd", "options": {"root": str(tmp_path / "in")}}}
    out = tmp_path / "out" / "manifest.json"
    assert main(["prepare", "--threads", "1", "--gpus", "0", "--out", str(out), "--spec", json.dumps(spec)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("depth of 1 scenes: valid 9") for line in lines)
    (warning,) = [line for line in lines if line.startswith("warning: ")]
    assert warning.startswith("warning: mine: 1 of 1 scenes whose views contradict each other")
