"""Poses of the neighbour: frames are numbered before images without a partner are left out, for every convention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import posed_rgbd_files as files
import pytest
from box_rooms import make_scene

from pipeline.core.errors import DataError
from pipeline.datasets.posed_rgbd.convention import Listing, ReadOptions
from pipeline.datasets.posed_rgbd.detect import find_scans
from pipeline.datasets.posed_rgbd.frame_names import entries_of, pair

SCENE = make_scene("desk", views=8, size=(24, 32))
ENTRY_LINES = 5
LOST = 3


def read(folder: Path, **options: object) -> Listing:
    (scan,) = find_scans(folder, "auto", None, where="datasets.x", read=ReadOptions(**options))
    return scan.convention.read(scan.folder, ReadOptions(**options))


def cut_log(folder: Path, entries: int) -> None:
    """Tracking was lost after this many frames."""
    lines = (folder / "trajectory.log").read_text().splitlines()
    (folder / "trajectory.log").write_text("\n".join(lines[: ENTRY_LINES * entries]) + "\n")


def check(listing: Listing, expected: list[int], posed: int = 8) -> None:
    """Frames are these views, each with its own pose; views from ``posed`` on have none."""
    assert len(listing.frames) == len(expected)
    for frame, view in zip(listing.frames, expected, strict=True):
        if view >= posed:
            assert frame.world_from_camera is None
        else:
            np.testing.assert_allclose(frame.world_from_camera, SCENE.record.world_from_camera[view], atol=2e-4)


@pytest.mark.parametrize("kind", ["depth", "color"])
def test_redwood_lost_depth(kind: str, tmp_path: Path) -> None:
    """One image is lost and the pose of the last frame: counts agree by chance."""
    files.write_redwood(tmp_path, SCENE)
    next((tmp_path / kind).glob(f"0000{LOST}.*")).unlink()
    cut_log(tmp_path, 7)
    listing = read(tmp_path)
    check(listing, [0, 1, 2, 4, 5, 6, 7], posed=7)
    assert listing.incomplete == 1


@pytest.mark.parametrize("kind", ["depth", "pose", "color"])
@pytest.mark.parametrize("name", ["tum", "seven_scenes", "scannet", "scannet_nested", "icl_nuim"])
def test_no_other_convention_takes_the_pose_of_a_neighbour(name: str, kind: str, tmp_path: Path) -> None:
    writers: dict[str, Callable[[Path], None]] = {
        "tum": lambda folder: files.write_tum(folder, SCENE, no_pose=(LOST,) if kind == "pose" else ()),
        "seven_scenes": lambda folder: files.write_seven_scenes(folder, SCENE),
        "scannet": lambda folder: files.write_scannet(folder, SCENE),
        "scannet_nested": lambda folder: files.write_scannet(folder, SCENE, nested=True),
        "icl_nuim": lambda folder: files.write_icl_nuim(folder, SCENE, lists=True),
    }
    writers[name](tmp_path)
    lists = {"tum": "{}.txt", "icl_nuim": "{}.txt"}.get(name)
    if lists is not None:
        file = tmp_path / {"depth": "depth.txt", "color": "rgb.txt"}.get(kind, "livingRoom0.gt.freiburg")
        if file.is_file():
            lines = file.read_text().splitlines()
            file.write_text("\n".join(lines[:LOST] + lines[LOST + 1 :] if name == "icl_nuim" else lines[:4] + lines[5:]) + "\n")
    else:
        endings = {"depth": ".png", "pose": ".txt", "color": ".jpg"}
        stem = {"seven_scenes": "frame-000003", "scannet": "00030", "scannet_nested": "30"}[name]
        ending = f".{kind}.*" if name == "seven_scenes" else endings[kind]
        next(tmp_path.glob(f"**/{stem}{ending}")).unlink()
    listing = read(tmp_path)
    whole = [0, 1, 2, 4, 5, 6, 7]
    if kind == "pose":
        assert [i for i, frame in enumerate(listing.frames) if frame.world_from_camera is None] == [LOST]
        listing = Listing(tuple(frame for frame in listing.frames if frame.world_from_camera is not None), 1)
    check(listing, whole)
    assert listing.incomplete == 1


def name_with_times(folder: Path, *, colour_us: int, depth_us: int, colour_numbers: Callable[[int], int]) -> None:
    """Redwood: number from 1 and time in the names."""
    for view in range(8):
        colour, depth = f"{colour_numbers(view):07d}-{view * colour_us:012d}", f"{view + 1:07d}-{view * depth_us:012d}"
        (folder / "color" / f"{view:05d}.jpg").rename(folder / "color" / f"{colour}.jpg")
        (folder / "depth" / f"{view:05d}.png").rename(folder / "depth" / f"{depth}.png")


def test_redwood_times_in_names(tmp_path: Path) -> None:
    """Only the first names are equal; the last picture has no depth image."""
    files.write_redwood(tmp_path, SCENE)
    name_with_times(tmp_path, colour_us=33_369, depth_us=33_333, colour_numbers=lambda view: view + 1)
    listing = read(tmp_path)
    check(listing, list(range(8)))
    assert (listing.frames[1].colour.name, listing.frames[1].depth.name) == (
        "0000002-000000033369.jpg",
        "0000002-000000033333.png",
    )
    listing.frames[-1].depth.unlink()
    listing.frames[2].depth.unlink()
    again = read(tmp_path)
    check(again, [0, 1, 3, 4, 5, 6])
    assert again.incomplete == 2


def test_times_decide_where_numbers_contradict_them(tmp_path: Path) -> None:
    """The picture between two others was dropped: its successors' numbers are those of the depth images before."""
    files.write_redwood(tmp_path, SCENE)
    name_with_times(tmp_path, colour_us=33_369, depth_us=33_333, colour_numbers=lambda view: view + 1)
    (tmp_path / "color" / "0000004-000000100107.jpg").unlink()
    for view in range(4, 8):
        old = tmp_path / "color" / f"{view + 1:07d}-{view * 33_369:012d}.jpg"
        old.rename(old.with_name(f"{view:07d}-{view * 33_369:012d}.jpg"))
    cut_log(tmp_path, 7)
    frames = read(tmp_path).frames
    assert [int(frame.depth.name[:7]) - 1 for frame in frames] == [0, 1, 2, 4, 5, 6, 7]
    assert read(tmp_path).incomplete == 1


def test_names_of_several_forms_are_paired(tmp_path: Path) -> None:
    def names(*listed: str) -> list[Path]:
        return [tmp_path / name for name in listed]

    numbered = pair(names("frame-2.color.jpg", "frame-10.color.jpg"), names("2_depth.png", "10_depth.png"), where="x")
    assert [frame.number for frame in numbered.whole] == [2, 10]
    stamps = pair(names("1.5.jpg", "2.5.jpg"), names("1.7.png", "2.7.png"), where="x")
    assert [(f.number, f.colour.stem, f.depth.stem) for f in stamps.whole] == [(0, "1.5", "1.7"), (1, "2.5", "2.7")]
    words = pair(names("a.jpg", "b.jpg", "c.jpg"), names("a.png", "c.png"), where="x")
    assert [frame.number for frame in words.whole] == [0, 2]
    assert (words.numbers, words.incomplete) == ((0, 1, 2), 1)


@pytest.mark.parametrize(
    ("numbers", "logged", "expected"),
    [
        ((0, 1, 2, 3), (0, 1, 2), (0, 1, 2, 3)),
        ((1, 2, 3), (0, 1, 2), (0, 1, 2)),
        ((0, 10, 20, 30), (0, 1, 2, 3), (0, 1, 2, 3)),
        ((0, 10, 20), range(21), (0, 10, 20)),
        ((0, 1, 2, 4, 5), range(6), (0, 1, 2, 4, 5)),
        ((3, 17, 42, 60), range(4), (0, 1, 2, 3)),
        ((5, 6, 7), (), (0, 1, 2)),
    ],
)
def test_what_entries_of_a_trajectory_count(numbers: tuple[int, ...], logged: range, expected: tuple[int, ...]) -> None:
    assert tuple(entries_of(numbers, logged, "auto", where="x").values()) == expected


@pytest.mark.parametrize("numbers", [(0, 1, 2, 4, 5), (1, 2, 4, 5, 6), (2, 3, 4, 5, 6)])
def test_lost_frames_that_could_be_either_are_refused(numbers: tuple[int, ...]) -> None:
    """Picture and depth image are lost: before or after the trajectory was made?"""
    with pytest.raises(DataError, match=r"(?s)frames were lost.*frame_numbers: from_0 or from_1.*order"):
        entries_of(numbers, range(5), "auto", where="x")
    assert list(entries_of(numbers, range(5), "order", where="x").values()) == [0, 1, 2, 3, 4]
    assert tuple(entries_of(numbers, range(5), "from_0", where="x").values()) == numbers
    assert tuple(entries_of(numbers, range(5), "from_1", where="x").values()) == tuple(n - 1 for n in numbers)
