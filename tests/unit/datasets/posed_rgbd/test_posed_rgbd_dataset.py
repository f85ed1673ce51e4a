"""The dataset kind posed_rgbd: units, splits, gravity, resuming, annotations, and messages for what users get wrong."""

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
from pipeline.core.errors import ConfigError, DataError, FrameError
from pipeline.datasets.posed_rgbd.align import level, turned_to_z, up_from_cameras
from pipeline.datasets.posed_rgbd.depth import DepthCode
from pipeline.scenes.geometry import unproject
from pipeline.scenes.index import SceneIndex

SCENE = make_scene("units", views=5, size=(48, 64))
CAMERA = files.pinhole(SCENE)


def dataset(root: Path, **options: Any) -> Any:
    return registry.create("datasets", {"name": "mine", "kind": "posed_rgbd", "options": {"root": str(root), **options}})


def prepare(root: Path, out: Path, **options: Any) -> SceneIndex:
    out.mkdir(parents=True, exist_ok=True)
    dataset(root, **options).prepare(out, threads=2)
    return SceneIndex(out / "manifest.json")


@pytest.mark.parametrize("name", ["tum", "seven_scenes", "redwood", "scannet"])
def test_every_convention_gives_the_same_scene(name: str, tmp_path: Path) -> None:
    getattr(files, f"write_{name}")(tmp_path / "in" / "s", SCENE)
    index = prepare(tmp_path / "in", tmp_path / "out", intrinsics=CAMERA)
    scene = index.load("s")
    assert scene.record.split == "test"
    assert scene.record.objects == ()
    np.testing.assert_allclose(scene.depth_m, SCENE.depth_m, atol=0.00051)
    np.testing.assert_array_equal(scene.depth_m == 0, SCENE.depth_m == 0)
    np.testing.assert_allclose(scene.record.world_from_camera, SCENE.record.world_from_camera, atol=2e-4)
    np.testing.assert_allclose(scene.record.depth_intrinsics, SCENE.record.intrinsics)
    assert np.abs(scene.rgb.astype(int) - SCENE.rgb.astype(int)).mean() < 3


def test_depth_units_are_exact() -> None:
    stored = np.arange(65536)
    tum = DepthCode(5000).table
    np.testing.assert_array_equal(tum, (stored * 2 + 5) // 10)
    np.testing.assert_array_equal(DepthCode(1000).table, stored)
    odd = DepthCode(6553.5).table  # Replica
    assert odd[65535] == 10000
    assert (np.abs(odd - stored / 6.5535) <= 0.5).all()
    seven = DepthCode(1000, (65535,), max_m=4.0).table
    assert (seven[65535], seven[4000], seven[4001]) == (0, 4000, 0)
    assert DepthCode(1000, max_m=4.02).table[4020] == 4020, "4.02 x 1000 is 4019.999... in floating point"
    assert DepthCode(100).table[6553] == 65530
    assert DepthCode(100).table[6554] == 0, "more than 65.535 m does not fit"
    turned = DepthCode(1000, code="rotated").table
    assert turned[1234 << 3] == 1234
    assert turned[7] == 7 << 13


def test_invalid_poses_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_scannet(tmp_path / "in", SCENE, lost=(0, 3))
    (tmp_path / "in" / "00010.png").unlink()
    index = prepare(tmp_path / "in", tmp_path / "out")
    assert index.records["in"].frame_ids == ("00020", "00040")
    assert "2 of 4 frames; dropped 2 without usable pose, 1 files without partner" in capsys.readouterr().err
    facts = json.loads((index.root / "in" / "scene.json").read_text())["facts"]
    assert (facts["frames"], facts["without_pose"], facts["incomplete"], facts["used"]) == (4, 2, 1, 2)
    for frame in range(5):
        (tmp_path / "in" / f"{frame * 10:05d}.txt").write_text("-inf " * 16)
    with pytest.raises(FrameError, match="none of the 4 frames has a usable pose"):
        prepare(tmp_path / "in", tmp_path / "out2")


def test_frames_are_sampled(tmp_path: Path) -> None:
    files.write_redwood(tmp_path / "in", SCENE)
    few = prepare(tmp_path / "in", tmp_path / "a", frames={"count": 3}).records["in"]
    assert few.frame_ids == ("00000", "00002", "00004")
    options = {"strategy": "max_coverage", "count": None, "ratio": 0.8, "voxel_m": 0.25}
    index = prepare(tmp_path / "in", tmp_path / "b", frames=options)
    assert 1 <= len(index.records["in"].frame_ids) < 5
    assert json.loads((index.root / "in" / "scene.json").read_text())["facts"]["covered"] >= 0.8
    again = prepare(tmp_path / "in", tmp_path / "c", frames=options).records["in"]
    assert again.frame_ids == index.records["in"].frame_ids


def test_scenes_splits_and_leftovers(tmp_path: Path) -> None:
    for name in ("a/seq-01", "a/seq-02", "b"):
        files.write_seven_scenes(tmp_path / "in" / name, make_scene(name, views=2, size=(24, 32)))
    (tmp_path / "in" / ".hidden").mkdir()
    options = {"intrinsics": [28.8, 28.8, 15.5, 11.5]}
    everything = prepare(tmp_path / "in", tmp_path / "out", split="val", **options)
    assert [(r.scene_id, r.split) for r in everything] == [("a_seq-01", "val"), ("a_seq-02", "val"), ("b", "val")]
    splits = {"train": ["b"], "test": ["a_seq-02"]}
    some = prepare(tmp_path / "in", tmp_path / "out", splits=splits, **options)
    assert [(r.scene_id, r.split) for r in some] == [("b", "train"), ("a_seq-02", "test")]
    assert sorted(path.name for path in some.root.iterdir()) == ["a_seq-02", "b"]
    one = prepare(tmp_path / "in", tmp_path / "out", scenes=["a/seq-01"], **options)
    assert list(one.records) == ["a_seq-01"]
    with pytest.raises(ConfigError, match=r"(?s)'c' is not there.*a_seq-01, a_seq-02, b"):
        prepare(tmp_path / "in", tmp_path / "out", splits={"val": ["c"]}, **options)
    for scene in ("seq-01", "../in/b", "/etc"):
        with pytest.raises(DataError, match="is not a folder below"):
            prepare(tmp_path / "in", tmp_path / "out", scenes=[scene], **options)


def test_ambiguous_folders_name_the_candidates(tmp_path: Path) -> None:
    files.write_redwood(tmp_path / "s", SCENE)
    (tmp_path / "s" / "pose").mkdir()
    with pytest.raises(DataError, match=r"(?s)fits several conventions: redwood, scannet_export.*convention: redwood"):
        prepare(tmp_path, tmp_path / "out")
    assert list(prepare(tmp_path / "s", tmp_path / "out", convention="redwood").records) == ["s"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)is not a folder.*datasets.mine.root"):
        prepare(tmp_path / "no", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"(?s)no scene of posed RGB-D.*tum: rgb.txt, depth.txt, groundtruth.txt"):
        prepare(tmp_path / "empty", tmp_path / "out")
    files.write_redwood(tmp_path / "s", SCENE)
    with pytest.raises(DataError, match=r"(?s)no scene of posed RGB-D.*tum: rgb.txt"):
        prepare(tmp_path / "s", tmp_path / "out", convention="tum")
    assert dataset(tmp_path / "no").planned() is None
    assert not dataset(tmp_path / "no").source_files()[0].path.exists()
    plan = dataset(tmp_path / "s", frames={"count": 2}).planned()
    assert (dict(plan.scenes), plan.views, plan.image_size) == ({"train": 0, "val": 0, "test": 1}, 2, (48, 64))


def test_the_camera_must_be_known_and_fit(tmp_path: Path) -> None:
    files.write_tum(tmp_path / "s", SCENE)
    with pytest.raises(DataError, match=r"(?s)camera of .* is not known: images are 64x48.*intrinsics: \[fx, fy, cx, cy\]"):
        prepare(tmp_path / "s", tmp_path / "out")
    with pytest.raises(DataError, match="do not belong to images of 64x48 pixels"):
        prepare(tmp_path / "s", tmp_path / "out", intrinsics=[525, 525, 319.5, 239.5])
    for view, frame in enumerate(sorted((tmp_path / "s" / "depth").iterdir())):
        files.save(frame, files.stored(SCENE.depth_m[view, ::2, ::2], 5000))
    camera = prepare(tmp_path / "s", tmp_path / "out", intrinsics=CAMERA).records["s"].depth_intrinsics
    np.testing.assert_allclose(camera[:2, :2], np.diag(CAMERA[:2]) / 2)
    np.testing.assert_allclose(camera[:2, 2], (np.array(CAMERA[2:]) + 0.5) / 2 - 0.5)


def test_a_camera_file_must_be_that_of_the_images(tmp_path: Path) -> None:
    files.write_redwood(tmp_path / "s", SCENE)
    path = tmp_path / "s" / "camera.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"width": 60}))
    with pytest.raises(DataError, match="of images of 60x48 pixels, the pictures are 64x48"):
        prepare(tmp_path / "s", tmp_path / "out")
    path.write_text(json.dumps(content))
    for view, frame in enumerate(sorted((tmp_path / "s" / "depth").iterdir())):
        files.save(frame, files.stored(SCENE.depth_m[view, ::2, ::2], 1000))
    camera = prepare(tmp_path / "s", tmp_path / "out").records["s"].depth_intrinsics
    np.testing.assert_allclose(camera[:2, :2], SCENE.record.intrinsics[:2, :2] / 2, err_msg="of half the size")


def test_stated_colour_cameras_leave_the_depth_cameras_of_files(tmp_path: Path) -> None:
    files.write_scannet(tmp_path / "s", SCENE)
    other = SCENE.record.intrinsics.copy()
    other[0, 0] *= 0.9
    square = np.eye(4)
    square[:3, :3] = other
    (tmp_path / "s" / "depth_intrinsic.txt").write_text(files.text_of(square))
    record = prepare(tmp_path / "s", tmp_path / "out", intrinsics=CAMERA).records["s"]
    np.testing.assert_allclose(record.depth_intrinsics, other)


def test_lists_of_seven_scenes_are_its_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("seq-01", "seq-02"):
        files.write_seven_scenes(tmp_path / "chess" / name, SCENE)
    (tmp_path / "chess" / "TrainSplit.txt").write_text("sequence2\n")
    (tmp_path / "chess" / "TestSplit.txt").write_text("sequence1\n")
    found = prepare(tmp_path, tmp_path / "out", intrinsics=CAMERA)
    assert [(r.scene_id, r.split) for r in found] == [("chess_seq-02", "train"), ("chess_seq-01", "test")]
    assert "chess_seq-02: seven_scenes, split train" in capsys.readouterr().err
    alone = prepare(tmp_path / "chess" / "seq-02", tmp_path / "alone", intrinsics=CAMERA)
    assert [r.split for r in alone] == ["train"]
    mine = prepare(tmp_path, tmp_path / "mine", intrinsics=CAMERA, split="val")
    assert {r.split for r in mine} == {"val"}


def test_a_changed_trajectory_makes_its_scene_again(tmp_path: Path) -> None:
    files.write_redwood(tmp_path / "in", SCENE)
    prepare(tmp_path / "in", tmp_path / "out")
    moved = SCENE.record.world_from_camera[0].copy()
    moved[0, 3] += 0.5
    log = tmp_path / "in" / "trajectory.log"
    log.write_text(f"0 0 1\n{files.text_of(moved)}")
    assert prepare(tmp_path / "in", tmp_path / "out").records["in"].frame_ids == ("00000",)


@pytest.mark.parametrize(
    "fault", ["truncated depth", "missing colour", "colour depth", "other size", "grey colour", "ink colours", "huge colour"]
)
def test_damaged_frames_are_named(fault: str, tmp_path: Path) -> None:
    files.write_redwood(tmp_path / "in", SCENE)
    colour, depth = tmp_path / "in" / "color" / "00003.jpg", tmp_path / "in" / "depth" / "00003.png"
    if fault == "truncated depth":
        depth.write_bytes(depth.read_bytes()[:200])
    elif fault == "missing colour":
        colour.write_bytes(b"")
    elif fault == "colour depth":
        Image.fromarray(SCENE.rgb[0]).save(depth)
    elif fault == "other size":
        files.save(depth, np.ones((10, 10), dtype=np.uint16))
    elif fault == "ink colours":
        Image.open(colour).convert("CMYK").save(colour)
    elif fault == "huge colour":
        data = colour.read_bytes()
        at = data.index(b"\xff\xc0") + 5  # height and width
        colour.write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
    else:
        Image.fromarray(SCENE.rgb[0, ..., 0]).save(colour)
    with pytest.raises(FrameError, match="00003"):
        prepare(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def tilted(pitch_deg: float, yaw_deg: np.ndarray, roll_deg: np.ndarray | float = 0.0) -> np.ndarray:
    """Poses that look down by ``pitch`` into several directions, in a world whose up is (0, -1, 0)."""
    poses = np.tile(np.eye(4), (len(yaw_deg), 1, 1))
    for pose, yaw, roll in zip(poses, np.radians(yaw_deg), np.radians(np.broadcast_to(roll_deg, len(yaw_deg))), strict=True):
        c, s, p, q = np.cos(yaw), np.sin(yaw), *(f(-np.radians(pitch_deg)) for f in (np.cos, np.sin))
        about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        about_x = np.array([[1, 0, 0], [0, p, -q], [0, q, p]])
        about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        pose[:3, :3] = about_y @ about_x @ about_z
    return poses


def test_up_from_cameras_that_look_down() -> None:
    """All cameras pitch by 30 degrees: their mean axis does not point up, their sideways axes tell."""
    rng = np.random.default_rng(0)
    up, roll = up_from_cameras(tilted(30, np.linspace(0, 200, 40), rng.normal(0, 2, 40)))
    assert np.degrees(np.arccos(up @ (0, -1, 0))) < 2
    assert 1 < roll < 3
    up, _ = up_from_cameras(tilted(0, np.zeros(5)))
    np.testing.assert_allclose(up, (0, -1, 0), atol=1e-9)
    np.testing.assert_allclose(level(tilted(10, np.linspace(0, 90, 9)), where="x")[:3, :3] @ (0, -1, 0), (0, 0, 1), atol=1e-3)


def test_cameras_that_roll_are_refused() -> None:
    with pytest.raises(DataError, match=r"(?s)held level, but it rolls.*gravity: matrix"):
        level(tilted(0, np.linspace(0, 300, 20), np.linspace(-80, 80, 20)), where="scan")


@pytest.mark.parametrize("up", [(0, 0, 1.0), (0, 0, -1.0), (0, -1.0, 0), (0.6, 0, 0.8), (0.36, 0.48, -0.8)])
def test_turned_to_z_is_a_rotation(up: tuple[float, ...]) -> None:
    turn = turned_to_z(up)[:3, :3]
    np.testing.assert_allclose(turn @ up, (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_gravity_brings_the_floor_to_zero(tmp_path: Path) -> None:
    """A room scanned with y down in its own frame: with gravity the floor is z = 0 and the walls stand."""
    scene = make_scene("gravity", views=12, size=(48, 64))
    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]  # z up becomes y down
    turn[:3, 3] = 5, -3, 2
    turned = make_scene("gravity", views=12, size=(48, 64))
    turned.record.world_from_camera[:] = turn @ scene.record.world_from_camera
    files.write_redwood(tmp_path / "in", turned)
    for options in ({"gravity": "trajectory"}, {"gravity": "matrix", "matrix": np.linalg.inv(turn).ravel().tolist()}):
        found = prepare(tmp_path / "in", tmp_path / str(options["gravity"]), **options).load("in")
        points, valid = unproject(found.depth_m, found.record.depth_intrinsics, found.record.world_from_camera)
        own, _ = unproject(scene.depth_m, scene.record.depth_intrinsics, scene.record.world_from_camera)
        difference = points[valid][:, 2] - own[valid][:, 2]
        assert np.abs(difference).max() < 0.15, f"{options['gravity']}: heights as in the room"
    (tmp_path / "in" / "align.txt").write_text(files.text_of(np.linalg.inv(turn)))
    one = prepare(tmp_path / "in", tmp_path / "file", gravity="matrix", matrix_file="align.txt").records["in"]
    np.testing.assert_allclose(one.world_from_camera, scene.record.world_from_camera, atol=1e-6)
    (tmp_path / "in" / "align.txt").write_text("1 " * 16)
    with pytest.raises(DataError, match=r"align.txt is no rotation"):
        prepare(tmp_path / "in", tmp_path / "file", gravity="matrix", matrix_file="align.txt")
    with pytest.raises(ConfigError, match=r"(?s)matrix is no rotation.*datasets.mine.matrix"):
        prepare(tmp_path / "in", tmp_path / "file", gravity="matrix", matrix=[1.0] * 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gravity": "matrix"}, "either matrix or matrix_file"),
        ({"matrix": [0.0] * 16}, "belong to gravity: matrix"),
        ({"gravity": "matrix", "matrix": [0.0] * 12}, "matrix"),
        ({"gravity": "trajectory", "objects": "boxes.json"}, "known beforehand"),
        ({"trajectory": "../other.log"}, "name of a file"),
        ({"splits": {"val": ["a"], "test": ["a"]}}, "names a scene twice"),
        ({"splits": {"training": ["a"]}}, "splits"),
        ({"convention": "tums"}, "convention"),
        ({"frames": {"stategy": "uniform"}}, "did you mean 'strategy'"),
        ({"depth_unit_per_m": 0}, "depth_unit_per_m"),
        ({"depth_unit_per_m": float("inf")}, "depth_unit_per_m"),
        ({"depth_max_m": float("inf")}, "depth_max_m"),
        ({"intrinsics": [float("nan"), 500, 320, 240]}, "intrinsics"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataset(Path("x"), **options)
