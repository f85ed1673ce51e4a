"""The four conventions: what is written in each comes back as the same scene; malformed files are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import posed_rgbd_files as files
import pytest
from box_rooms import make_scene

from pipeline.core.errors import DataError, FrameError
from pipeline.datasets.posed_rgbd.camera_files import read_camera
from pipeline.datasets.posed_rgbd.clocks import associate
from pipeline.datasets.posed_rgbd.convention import Listing, ReadOptions
from pipeline.datasets.posed_rgbd.detect import CONVENTIONS, find_scans
from pipeline.datasets.posed_rgbd.poses import pose_of_quaternion, read_matrix, usable_pose
from pipeline.datasets.posed_rgbd.redwood import read_log

SCENE = make_scene("conventions", views=3, size=(24, 32))
WRITERS: dict[str, Callable[[Path], None]] = {
    "tum": lambda folder: files.write_tum(folder, SCENE),
    "seven_scenes": lambda folder: files.write_seven_scenes(folder, SCENE),
    "redwood": lambda folder: files.write_redwood(folder, SCENE),
    "scannet_export": lambda folder: files.write_scannet(folder, SCENE),
}


def read(folder: Path, **options: object) -> Listing:
    (scan,) = find_scans(folder, "auto", None, where="datasets.x", read=ReadOptions(**options))
    return scan.convention.read(scan.folder, ReadOptions(**options))


@pytest.mark.parametrize("name", WRITERS)
def test_every_convention_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "scene")
    (scan,) = find_scans(tmp_path, "auto", None, where="datasets.x")
    assert (scan.scene_id, scan.convention.name) == ("scene", name)
    assert find_scans(tmp_path / "scene", name, None, where="datasets.x")[0].scene_id == "scene"
    listing = scan.convention.read(scan.folder, ReadOptions())
    assert (len(listing.frames), listing.incomplete) == (3, 0)
    for frame, pose in zip(listing.frames, SCENE.record.world_from_camera, strict=True):
        assert frame.colour.is_file()
        assert frame.depth.is_file()
        np.testing.assert_allclose(frame.world_from_camera, pose, atol=2e-4)
    if name in ("redwood", "scannet_export"):
        np.testing.assert_allclose(listing.intrinsics, SCENE.record.intrinsics)
    assert (listing.camera_size == (24, 32)) == (name == "redwood")
    if name == "scannet_export":
        np.testing.assert_allclose(listing.depth_intrinsics, SCENE.record.intrinsics)


def test_all_conventions_have_a_name_and_say_what_they_need() -> None:
    assert set(CONVENTIONS) == set(WRITERS)
    assert all(convention.needs and convention.depth_unit_per_m > 0 for convention in CONVENTIONS.values())


def test_exported_scannet_in_folders_in_numeric_order(tmp_path: Path) -> None:
    many = make_scene("many", views=12, size=(8, 8))
    files.write_scannet(tmp_path, many, nested=True, lost=(1, 4))
    frames = read(tmp_path).frames
    assert [frame.frame_id for frame in frames] == [str(10 * i) for i in range(12)], "not 0, 10, 100, 110, 20"
    assert [i for i, frame in enumerate(frames) if frame.world_from_camera is None] == [1, 4]


def naive_associate(first: list[float], second: list[float], limit: float) -> list[tuple[int, int]]:
    """All pairs, closest first, as the benchmark's tool does it."""
    pairs = sorted((abs(a - b), a, b, i, j) for i, a in enumerate(first) for j, b in enumerate(second) if abs(a - b) < limit)
    found, ones, twos = [], set(), set()
    for *_, i, j in pairs:
        if i not in ones and j not in twos:
            found.append((i, j))
            ones.add(i)
            twos.add(j)
    return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_association_equals_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (np.sort(rng.uniform(0, 2, n)) for n in (60, 75))
    found = associate(first, second, 0.02)
    assert found == naive_associate(first.tolist(), second.tolist(), 0.02)
    assert 20 < len(found) < 60
    shuffled = rng.permutation(75)
    again = associate(first, second[shuffled], 0.02)
    assert [(i, int(shuffled[j])) for i, j in again] == found, "the order of lines does not matter"


def test_tum_frames_without_partner_or_pose(tmp_path: Path) -> None:
    files.write_tum(tmp_path, SCENE, no_pose=(2,))
    lines = (tmp_path / "depth.txt").read_text().splitlines()
    (tmp_path / "depth.txt").write_text("\n".join(lines[:1] + lines[2:]))
    listing = read(tmp_path)
    assert listing.incomplete == 1
    assert [frame.world_from_camera is None for frame in listing.frames] == [False, True]
    assert len(read(tmp_path, max_time_difference_s=0.005).frames) == 0
    assert read(tmp_path, max_time_difference_s=0.005).incomplete == 5


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("rgb.txt", "1.5", "malformed"),
        ("rgb.txt", "1.5 ../../etc/passwd", "malformed"),
        ("depth.txt", "soon depth/1.png", "could not convert"),
        ("groundtruth.txt", "1 2 3", "3 columns instead of 8"),
        ("groundtruth.txt", "nan 0 0 0 0 0 0 1", "not finite"),
    ],
)
def test_malformed_lines_of_tum_are_named(file: str, line: str, message: str, tmp_path: Path) -> None:
    files.write_tum(tmp_path, SCENE)
    with (tmp_path / file).open("a") as stream:
        stream.write(line + "\n")
    count = len((tmp_path / file).read_text().splitlines())
    with pytest.raises(DataError, match=rf"(?s){message}.*{file}, line {count}"):
        read(tmp_path)


def test_seven_scenes_nan_of_windows_and_missing_parts(tmp_path: Path) -> None:
    files.write_seven_scenes(tmp_path, SCENE)
    (tmp_path / "frame-000000.pose.txt").write_text("-1.#IND " * 16)
    (tmp_path / "frame-000001.depth.png").unlink()
    listing = read(tmp_path)
    assert [(f.frame_id, f.world_from_camera is None) for f in listing.frames] == [
        ("frame-000000", True),
        ("frame-000002", False),
    ]
    assert listing.incomplete == 1
    (tmp_path / "frame-000002.pose.txt").write_text("1 0 0 zero " * 4)
    with pytest.raises(FrameError, match=r"frame-000002.pose.txt cannot be read"):
        read(tmp_path)


def test_redwood_pairs_by_order_where_names_differ(tmp_path: Path) -> None:
    files.write_redwood(tmp_path, SCENE, names="other", camera=False)
    listing = read(tmp_path)
    assert [(f.colour.name, f.depth.name) for f in listing.frames][2] == ("00002.jpg", "00002-000000066666.png")
    assert listing.intrinsics is None
    for i, path in enumerate(sorted((tmp_path / "color").iterdir())):
        path.rename(path.with_name(f"view_{'abc'[i]}.jpg"))
    assert [(f.colour.name, f.depth.name) for f in read(tmp_path).frames][2] == ("view_c.jpg", "00002-000000066666.png")
    (tmp_path / "depth" / "00002-000000066666.png").unlink()
    with pytest.raises(DataError, match="3 colour and 2 depth images have different names"):
        read(tmp_path)


def test_redwood_candidates_are_listed(tmp_path: Path) -> None:
    files.write_redwood(tmp_path, SCENE)
    (tmp_path / "camera_other.json").write_text("{}")
    with pytest.raises(DataError, match=r"(?s)camera.json, camera_other.json.*camera_file"):
        read(tmp_path)
    assert len(read(tmp_path, camera_file="camera.json").frames) == 3
    (tmp_path / "trajectory.log").rename(tmp_path / "a.log")
    (tmp_path / "odometry.log").write_text("")
    with pytest.raises(DataError, match=r"(?s)a.log, odometry.log.*trajectory"):
        read(tmp_path, camera_file="camera.json")
    assert read(tmp_path, camera_file="camera.json", trajectory="a.log").frames[0].world_from_camera is not None
    (tmp_path / "image").mkdir()
    with pytest.raises(DataError, match="color, image"):
        read(tmp_path, camera_file="camera.json", trajectory="a.log")


UNIT = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"0 0 1\n{UNIT}1 1 2\n1 0 0 0\n", "truncated"),
        (f"0 0 1\n{UNIT}zero 0 1\n{UNIT}", "line 6"),
        (f"0 0 1\n{UNIT}0 0 1\n{UNIT}", "frame 0 comes twice"),
        (f"0 3 9\n{UNIT}", "relates two frames"),
        ("0 0 1\n" + UNIT.replace("1 0 0 0", "1 0 0"), "malformed"),
        (f"0 0\n{UNIT}", "malformed"),
    ],
)
def test_malformed_logs(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.log").write_text(text)
    with pytest.raises(DataError, match=message):
        read_log(tmp_path / "t.log")


def test_a_log_beyond_the_frames_and_one_with_gaps(tmp_path: Path) -> None:
    files.write_redwood(tmp_path, SCENE)
    (tmp_path / "trajectory.log").write_text(f"2 2 3\n{UNIT}")
    assert [frame.world_from_camera is None for frame in read(tmp_path).frames] == [True, True, False]
    (tmp_path / "trajectory.log").write_text(f"3 3 4\n{UNIT}")
    with pytest.raises(DataError, match="frame 3, but there are 3 frames"):
        read(tmp_path)


def test_camera_files(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    path.write_text('{"intrinsic_matrix": [1, 2, 3]}')
    for _ in range(2):
        with pytest.raises(DataError, match=r"(?s)camera.json cannot be read.*by columns"):
            read_camera(path)
        path.write_text('{"intrinsic_matrix": [5')
    path.write_text('{"intrinsic_matrix": [1' + "0" * 5000 + "]}")
    with pytest.raises(DataError, match=r"camera.json cannot be read"):
        read_camera(path)


def test_a_named_trajectory_is_what_a_scene_is_known_by(tmp_path: Path) -> None:
    """ICL-NUIM and one's own SLAM: the usual file is not there."""
    files.write_tum(tmp_path / "tum", SCENE)
    (tmp_path / "tum" / "groundtruth.txt").rename(tmp_path / "tum" / "slam.txt")
    files.write_redwood(tmp_path / "redwood", SCENE)
    (tmp_path / "redwood" / "trajectory.log").rename(tmp_path / "redwood" / "slam.txt")
    for name in ("tum", "redwood"):
        with pytest.raises(DataError, match="no scene of posed RGB-D"):
            read(tmp_path / name)
        assert all(frame.world_from_camera is not None for frame in read(tmp_path / name, trajectory="slam.txt").frames)


def test_official_splits_of_seven_scenes(tmp_path: Path) -> None:
    for name in ("seq-01", "seq-02", "seq-10"):
        files.write_seven_scenes(tmp_path / "chess" / name, SCENE)
    lists = {name: tmp_path / "chess" / f"{name}Split.txt" for name in ("Train", "Test")}

    def splits() -> list[str | None]:
        scans = find_scans(tmp_path, "auto", None, where="datasets.x")
        return [scan.convention.split(scan.folder) for scan in scans]

    assert splits() == [None] * 3
    lists["Train"].write_text("sequence1\r\nsequence10 \r\n")
    lists["Test"].write_text("# two of them\nsequence2\nsequence3\n\n")
    assert splits() == ["train", "test", "train"]
    for text, message in (("sequence2\nsequence1\n", "both of"), ("sequence3\n", "none of"), ("seq-02\n", "malformed")):
        lists["Test"].write_text(text)
        with pytest.raises(DataError, match=message):
            splits()


def test_folders_in_place_of_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "00000.txt").mkdir()
    for function in (read_matrix, read_log, read_camera):
        with pytest.raises(DataError, match=r"00000.txt cannot be read \(Is a directory\)"):
            function(tmp_path / "00000.txt")


def test_usable_poses() -> None:
    assert usable_pose(np.full((4, 4), -np.inf)) is None
    assert usable_pose(np.diag([1.0, 1.0, -1.0, 1.0])) is None, "mirrored"
    far = np.eye(4)
    far[1, 3] = -1e30
    assert usable_pose(far) is None, "voxels of it have no number"
    assert pose_of_quaternion((0, 1e30, 0), (0, 0, 0, 1)) is None
    assert usable_pose(np.diag([2.0, 2.0, 2.0, 1.0])) is None, "scaled"
    assert usable_pose(np.zeros((4, 4))) is None
    rough = np.eye(4) + np.pad([[0.004, 0.003], [0.0, -0.002]], ((0, 2), (0, 2)))
    fixed = usable_pose(rough)
    np.testing.assert_allclose(fixed[:3, :3] @ fixed[:3, :3].T, np.eye(3), atol=1e-12)
    exact = SCENE.record.world_from_camera[0]
    np.testing.assert_array_equal(usable_pose(exact), exact)


def test_quaternions() -> None:
    half = np.sqrt(0.5)
    quarter = pose_of_quaternion((1, 2, 3), (0, 0, half, half))
    np.testing.assert_allclose(quarter @ (1, 0, 0, 1), (1, 3, 3, 1), atol=1e-12)
    rounded = pose_of_quaternion((1, 2, 3), (0, 0, 0.7072, 0.7072))
    np.testing.assert_allclose(rounded, quarter, atol=1e-12)
    assert pose_of_quaternion((0, 0, 0), (0, 0, 0, 0)) is None
    assert pose_of_quaternion((0, 0, np.nan), (0, 0, 0, 1)) is None
    assert pose_of_quaternion((0, 0, 0), (np.nan, 0, 0, 1)) is None


def test_matrix_files_of_the_wrong_size(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("1 2 3")
    with pytest.raises(FrameError, match="holds 3 numbers"):
        read_matrix(tmp_path / "m.txt")
    with pytest.raises(DataError, match="missing"):
        read_matrix(tmp_path / "n.txt")
