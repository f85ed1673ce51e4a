"""Exports as they are found: read right, or refused with the true cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import posed_rgbd_files as files
import pytest
from box_rooms import make_scene
from PIL import Image

from pipeline.core import registry
from pipeline.core.errors import DataError, FrameError
from pipeline.datasets.posed_rgbd.camera_files import read_camera
from pipeline.datasets.posed_rgbd.cameras import turned_down
from pipeline.scenes.index import SceneIndex

SCENE = make_scene("desk")
SMALL = make_scene("desk", views=3, size=(24, 32))
PINHOLE = files.pinhole(SCENE)


def prepare(root: Path, out: Path, **options: Any) -> SceneIndex:
    member = {"name": "mine", "kind": "posed_rgbd", "options": {"root": str(root), **options}}
    registry.create("datasets", member).prepare(out, threads=2)
    return SceneIndex(out / "manifest.json")


def check(index: SceneIndex, *, intrinsics: bool = True) -> None:
    """The scene that was written, without any doubt about its depth."""
    (record,) = index
    np.testing.assert_allclose(record.world_from_camera, SCENE.record.world_from_camera, atol=2e-4)
    if intrinsics:
        np.testing.assert_allclose(record.intrinsics, SCENE.record.intrinsics)
        np.testing.assert_allclose(record.depth_intrinsics, SCENE.record.intrinsics)
    np.testing.assert_allclose(index.load(record.scene_id).depth_m, SCENE.depth_m, atol=0.00051)
    assert index.notes == ()


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("named", [{}, {"trajectory": "livingRoom0.gt.freiburg"}, {"convention": "tum"}])
def test_icl_nuim(lists: bool, named: dict[str, str], tmp_path: Path) -> None:
    files.write_icl_nuim(tmp_path / "in" / "living_room", SCENE, lists=lists)
    check(prepare(tmp_path / "in", tmp_path, intrinsics=PINHOLE, **named))


@pytest.mark.parametrize("lists", [False, True])
def test_icl_nuim_with_negative_fy_is_turned_and_not_mirrored(
    lists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write_icl_nuim(tmp_path / "in" / "living_room", SCENE, lists=lists, y_up=True)
    fx, fy, cx, cy = PINHOLE
    check(prepare(tmp_path / "in", tmp_path / "a", intrinsics=[fx, -fy, cx, cy]))
    assert "y of camera and world turned (fy below 0)" in capsys.readouterr().err
    wrong = prepare(tmp_path / "in", tmp_path / "b", intrinsics=PINHOLE)
    assert [note.kind for note in wrong.notes] == ["depth_disagrees"], "fy above 0 for these poses is noticed"
    with pytest.raises(DataError, match=r"(?s)y of one points up, of the other down"):
        prepare(tmp_path / "in", tmp_path / "c", intrinsics=[fx, -fy, cx, cy], depth_intrinsics=PINHOLE)


def test_icl_nuim_has_its_own_camera_and_levels(tmp_path: Path) -> None:
    """640x480 without any option but gravity; the floor is at 0 whatever the world's up was."""
    files.write_icl_nuim(tmp_path / "in" / "office", make_scene("desk", views=2, size=(480, 640)), y_up=True)
    record = prepare(tmp_path / "in", tmp_path, gravity="trajectory").records["office"]
    np.testing.assert_array_equal(record.intrinsics, [[481.2, 0, 319.5], [0, 480, 239.5], [0, 0, 1]])
    rotation = record.world_from_camera[:, :3, :3]
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    assert (rotation[:, 2, 1] < -0.9).all(), "the cameras' downward axes point down"


def test_turning_y_keeps_what_is_seen() -> None:
    """A point in front of the stated camera is in the same pixel of the turned one."""
    poses = SCENE.record.world_from_camera
    point = np.array([0.3, 0.7, 2.0, 1.0])
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    world = np.einsum("vij,j->vi", poses, point)
    again = np.einsum("vij,vj->vi", np.linalg.inv(turned_down(poses)), world @ mirror)
    np.testing.assert_allclose(again, np.tile(mirror @ point, (len(poses), 1)), atol=1e-12)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0 rgb/0.png\n", "2 columns instead of 4"),
        ("0 a/0.png 0 b/0.png\n", "is the depth image"),
        ("0 depth/0.png 0 ../rgb/0.png\n", "malformed"),
    ],
)
def test_malformed_associations_are_named(lines: str, message: str, tmp_path: Path) -> None:
    files.write_icl_nuim(tmp_path / "in", SMALL)
    (tmp_path / "in" / "associations.txt").write_text(lines)
    with pytest.raises(DataError, match=rf"(?s){message}.*associations.txt, line 1"):
        prepare(tmp_path / "in", tmp_path)


@pytest.mark.parametrize("names", ["intrinsics_{}.txt", "intrinsic_{}.txt"])
def test_scannet_frames_25k(names: str, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "scannet_frames_25k" / "scene0000_00"
    files.write_scannet(folder, SCENE, nested=True)
    for kind in ("color", "depth"):
        (folder / "intrinsic" / f"intrinsic_{kind}.txt").rename(folder / names.format(kind))
        (folder / {"color": "label", "depth": "instance"}[kind]).mkdir()
    (folder / "intrinsic").rmdir()
    check(prepare(tmp_path / "in", tmp_path))


FOCAL = 570.342205


def seven_named(folder: Path, suffix: str = ".png") -> None:
    """Frames named as those of 7-Scenes, 640x480: its default camera of 585 px would fit."""
    scene = make_scene("desk", views=2, size=(480, 640))
    files.write_seven_scenes(folder, scene)
    for path in folder.glob("*.color.png") if suffix == ".jpg" else ():
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=95)
        path.unlink()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("name", ["camera-intrinsics.txt", "../camera-intrinsics.txt", "intrinsics.txt", "../camera.json"])
def test_camera_files_beside_frames_named_as_7_scenes_are_read(name: str, suffix: str, tmp_path: Path) -> None:
    """3DMatch and SUN3D: beside the sequence's folder; tsdf-fusion: beside the frames."""
    folder = tmp_path / "in" / "scene" / "seq-01"
    seven_named(folder, suffix)
    matrix = [[FOCAL, 0, 320], [0, FOCAL, 240], [0, 0, 1]]
    content = json.dumps({"intrinsic_matrix": np.transpose(matrix).ravel().tolist()})
    text = "\n".join(" ".join(f"{v:.8e}\t" for v in row) for row in matrix)
    (folder / name).write_text(content if name.endswith("json") else text)
    record = prepare(tmp_path / "in", tmp_path).records["scene_seq-01"]
    np.testing.assert_allclose(record.intrinsics, matrix, atol=1e-4)
    np.testing.assert_allclose(record.depth_intrinsics, matrix, atol=1e-4)


def test_the_default_camera_is_for_scenes_without_any_camera_file(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "seq-01"
    seven_named(folder)
    default = prepare(folder, tmp_path / "a").records["seq-01"].intrinsics
    np.testing.assert_array_equal(default, [[585, 0, 320], [0, 585, 240], [0, 0, 1]])
    (folder / "calibration.yaml").write_text("fx: 570\n")
    with pytest.raises(DataError, match=r"(?s)calibration.yaml is of a kind that is not read.*intrinsics: \[fx"):
        prepare(folder, tmp_path / "b")
    (folder / "camera.txt").write_text("570 570 320 240\n")
    with pytest.raises(DataError, match=r"(?s)camera.txt cannot be read .*4 numbers.*intrinsics: \[fx"):
        prepare(folder, tmp_path / "c")
    (folder / "camera-intrinsics.txt").write_text(f"{FOCAL} 0 640\n0 {FOCAL} 480\n0 0 1\n")
    with pytest.raises(
        DataError, match=r"(?s)2 candidates for the camera file: camera-intrinsics.txt, camera.txt.*camera_file"
    ):
        prepare(folder, tmp_path / "d")
    with pytest.raises(DataError, match="do not belong to images of 640x480"):
        prepare(folder, tmp_path / "e", camera_file="camera-intrinsics.txt")
    assert len(prepare(folder, tmp_path / "f", intrinsics=[FOCAL, FOCAL, 320, 240]).records) == 1


@pytest.mark.parametrize("scale", [2, 0.5])
def test_a_camera_of_images_of_another_size_is_refused(scale: float, tmp_path: Path) -> None:
    """Its principal point may still lie inside; a stated one is believed."""
    files.write_seven_scenes(tmp_path / "in", SCENE)
    camera = np.array(SCENE.record.intrinsics) * [[scale], [scale], [1]]
    np.savetxt(tmp_path / "in" / "camera-intrinsics.txt", camera)
    with pytest.raises(DataError, match="do not belong to images of 128x96"):
        prepare(tmp_path / "in", tmp_path / "a")
    (tmp_path / "in" / "camera-intrinsics.txt").unlink()
    stated = [float(camera[0, 0]), float(camera[1, 1]), 40.0, 30.0]
    assert len(prepare(tmp_path / "in", tmp_path / "b", intrinsics=stated).records) == 1


def test_matrices_that_are_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "camera-intrinsics.txt"
    for text in ("1 0 0\n0 1 0\n", "1 0 0 0 1 0 5 5 1", "1 0 0\n0 nan 0\n0 0 1\n", "one 0 0 0 1 0 0 0 1"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"camera-intrinsics.txt cannot be read"):
            read_camera(path)


def shift_times(path: Path, *, add_s: float = 0.0, per_s: int = 1) -> None:
    """Time stamps of another clock, or in other units."""
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        if not line.startswith("#"):
            time, rest = line.split(" ", 1)
            stamp = float(time) + add_s
            lines[i] = f"{stamp:.6f} {rest}" if per_s == 1 else f"{round(stamp * per_s)} {rest}"
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("per_s", [10**3, 10**6, 10**9])
@pytest.mark.parametrize("which", [("rgb", "depth", "groundtruth"), ("rgb", "depth")])
def test_tum_other_clock_nanoseconds_are_read(per_s: int, which: tuple[str, ...], tmp_path: Path) -> None:
    """Of all lists, or (ROS) of the images only."""
    files.write_tum(tmp_path / "in", SCENE)
    for name in which:
        shift_times(tmp_path / "in" / f"{name}.txt", per_s=per_s)
    check(prepare(tmp_path / "in", tmp_path, intrinsics=PINHOLE))


def test_tum_other_clock_one_hour_is_named_and_read_as_told(tmp_path: Path) -> None:
    files.write_tum(tmp_path / "in", SCENE)
    shift_times(tmp_path / "in" / "groundtruth.txt", add_s=3600)
    cause = r"(?s)none of the 4 frames has a usable pose.*pictures from 1305031102.*poses from 1305034702.*\+3,600.0 s apart"
    with pytest.raises(FrameError, match=cause + r".*clock_offset_s: about -3600.0"):
        prepare(tmp_path / "in", tmp_path / "a", intrinsics=PINHOLE)
    check(prepare(tmp_path / "in", tmp_path / "b", intrinsics=PINHOLE, clock_offset_s=-3600))


def test_tum_other_clocks_that_have_nothing_in_common(tmp_path: Path) -> None:
    files.write_tum(tmp_path / "in", SCENE)
    shift_times(tmp_path / "in" / "depth.txt", add_s=-1305031000)
    with pytest.raises(
        FrameError, match=r"no time of the depth images is within 0.02 s.* s apart: other clocks, time zones or units"
    ):
        prepare(tmp_path / "in", tmp_path / "a", intrinsics=PINHOLE)
    (tmp_path / "in" / "depth.txt").write_text("# nothing\n")
    with pytest.raises(FrameError, match="there are no depth images"):
        prepare(tmp_path / "in", tmp_path / "a", intrinsics=PINHOLE)
