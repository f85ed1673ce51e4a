"""The dataset kind scannet on missing, damaged and foreign files: what it refuses, and how it says so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scannet_files as made

from pipeline.__main__ import main
from pipeline.core import registry
from pipeline.core.errors import AnnotationError, ConfigError, DataError, FrameError, PipelineError

TRAIN, OTHER, VAL, TEST = made.SCANS
FRAMES = ("00000", "00002", "00006", "00008", "00010")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"scans/{VAL}/{VAL}.sens", "ends inside"),
        (f"scans/{VAL}/{VAL}_vh_clean_2.ply", "ends early"),
        (f"scans/{VAL}/{VAL}.aggregation.json", "not valid JSON"),
        (f"mask/{VAL}.mask.npz", "cannot be read"),
    ],
)
def test_a_broken_scan_stops_with_its_name_or_is_left_out(
    release: tuple[Path, dict[str, Any]], tmp_path: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, options = release
    cut(root / name) if not name.endswith("npz") else (root / name).write_bytes(b"PK")
    with pytest.raises(DataError, match=message) as error:
        made.prepare(options, tmp_path / "a")
    assert f"scan {VAL}: " in str(error.value)
    assert Path(name).name in str(error.value)
    assert "datasets.scannet.skip_broken: true" in str(error.value)
    assert not (tmp_path / "a" / "manifest.json").exists()
    index = made.prepare(options | {"skip_broken": True}, tmp_path / "b")
    assert sorted(index.records) == [TRAIN, OTHER, TEST]
    assert list(made.report(index)["skipped"]) == [VAL]
    assert f"1 broken scans left out ({VAL}" in capsys.readouterr().err


def test_missing_scans_and_no_scan_at_all(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Found before the first scan is made, all of them at once."""
    root, options = release
    (root / "mask" / f"{VAL}.mask.npz").unlink()
    with pytest.raises(DataError, match=rf"(?s)source files of 1 of 4 scans are missing: {VAL}\n.*{VAL}.mask.npz"):
        made.prepare(options, tmp_path / "a")
    shutil.rmtree(root / "scans")
    with pytest.raises(DataError, match="source files of 4 of 4 scans are missing"):
        made.prepare(options, tmp_path / "a")
    assert not (tmp_path / "a" / "posed_images").exists()
    with pytest.raises(DataError, match="all 4 scans are broken"):
        made.prepare(options | {"skip_broken": True}, tmp_path / "b")


def test_frames_without_any_valid_pose(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    cameras = {"color_intrinsics": np.eye(4), "depth_intrinsics": np.eye(4)}
    lost = [(np.full((4, 4), value), b"", b"") for value in (-np.inf, np.nan, 0.0)]
    (root / "scans" / TRAIN / f"{TRAIN}.sens").write_bytes(made.sens_bytes(lost, **cameras))
    with pytest.raises(FrameError, match="none of 3 frames has a valid pose"):
        made.prepare(options | {"frame_step": 1, "only": [TRAIN]}, tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda color: color[:200], "not an image|cannot be decoded"),
        (lambda color: color[: len(color) // 2], "cannot be decoded"),
        (lambda _: b"", "not an image"),
        (lambda _: made.jpeg(np.zeros((10, 10, 3), dtype=np.uint8), (10, 10)), r"\(10, 10\) pixels"),
    ],
)
def test_damaged_colour_names_the_frame(
    release: tuple[Path, dict[str, Any]], tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    root, options = release
    folder = made.export(root, TRAIN)
    path = folder / "00008.jpg"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FrameError, match=message) as error:
        made.prepare(options | {"only": [TRAIN]}, tmp_path / "a")
    assert "frame 00008" in str(error.value)


def test_a_header_that_asks_for_gigabytes_names_the_frame(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    folder = made.export(root, TRAIN)
    path = folder / "00008.jpg"
    whole = path.read_bytes()
    at = whole.index(b"\xff\xc0") + 5  # height and width of the JPEG
    path.write_bytes(whole[:at] + b"\xff" * 4 + whole[at + 4 :])
    with pytest.raises(FrameError, match=r"(?s)not an image.*frame 00008") as error:
        made.prepare(options | {"only": [TRAIN]}, tmp_path / "a")
    assert "exceeds limit" in str(error.value)


def test_frames_far_away_and_those_of_windows_have_no_valid_pose(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    folder = made.export(root, TRAIN)
    pose = np.loadtxt(folder / "00008.txt")
    pose[0, 3] = 1e30
    np.savetxt(folder / "00008.txt", pose)
    (folder / "00010.txt").write_text("-1.#INF 0 0 0\n" * 4)
    index = made.prepare(options | {"only": [TRAIN]}, tmp_path / "a")
    assert index.records[TRAIN].frame_ids == ("00000", "00002", "00006")
    assert made.report(index)["scans"][TRAIN]["invalid_poses"] == 3


def test_exports_in_folders_name_the_way_out(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    (root / "posed_images" / TRAIN / "color").mkdir(parents=True)
    with pytest.raises(FrameError, match=r"(?s)no \*.jpg frames.*posed_rgbd.*source: sens"):
        made.prepare(options | {"only": [TRAIN]}, tmp_path / "a")


def test_intrinsics_of_the_other_images_are_refused(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    folder = made.export(root, TRAIN)
    colour = np.loadtxt(folder / "intrinsic.txt")
    colour[0, 2] *= 1.6
    np.savetxt(folder / "depth_intrinsic.txt", colour)
    with pytest.raises(FrameError, match=r"(?s)principal point .* in images of 96x72 pixels.*depth_intrinsic.txt"):
        made.prepare(options | {"only": [TRAIN]}, tmp_path / "a")


def test_voxels_too_small_for_any_scene_are_refused_before_it_is_read(
    release: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    frames = {"strategy": "max_coverage", "count": 2, "voxel_m": 1e-7}
    with pytest.raises(ConfigError, match=r"frames\.voxel_m: Input should be greater than or equal to 0\.001"):
        made.prepare(release[1] | {"frames": frames, "only": [TRAIN]}, tmp_path / "a")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("../../etc/passwd\n", "not a valid id"),
        ("scene0000_00\nscene0000_00\n", "comes twice"),
        (f"{VAL}\n", "comes twice"),
        ("\n", "is empty"),
    ],
)
def test_faulty_split_lists(release: tuple[Path, dict[str, Any]], tmp_path: Path, lines: str, message: str) -> None:
    root, options = release
    (root / "scannetv2_train.txt").write_text(lines)
    with pytest.raises(DataError, match=message) as error:
        made.prepare(options, tmp_path / "a")
    assert "scannetv2_train.txt" in str(error.value)


def test_annotation_files_are_checked_before_any_scan_is_touched(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    path = root / "annotations" / "ScanQA_v1.0_val.json"
    data = path.read_text()
    for text, message in (
        (data[:-5], "not valid JSON"),
        (data.replace(VAL, "../x"), "not a valid id"),
        ("{}", "asks about no scan"),
        ('[{"scene_id": 1' + "0" * 5000 + "}]", "not valid JSON"),
        (data.replace(VAL, TRAIN), "not in the split val: scene0000_00"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message) as error:
            made.prepare(options, tmp_path / "a")
        assert "ScanQA_v1.0_val.json" in str(error.value)
    path.unlink()
    with pytest.raises(AnnotationError, match=r"ScanQA_v1\.0_val\.json is missing"):
        made.prepare(options, tmp_path / "a")
    assert not (tmp_path / "a" / "posed_images").exists()
    index = made.prepare(options | {"benchmarks": ["scanrefer"]}, tmp_path / "b")
    assert list(index.content["annotations"]) == ["scanrefer"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposals": "boxes"}, "boxes"),
        ({"boxes": "x.json"}, "boxes"),
        ({"train_scenes": None, "val_scenes": None}, "there is no scan"),
        ({"image_size": [1, 1]}, "image_size"),
        ({"benchmarks": ["scanqa", "scanqa"]}, "names one twice"),
        ({"frame_stpe": 3}, "did you mean 'frame_step'"),
        ({"frames": {"strategy": "best"}}, "strategy"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.create("datasets", {"name": "scannet", "kind": "scannet", "options": options})


def test_the_command_line_answers_a_fault_without_a_traceback(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, options = release
    cut(root / "scans" / VAL / f"{VAL}.sens")
    spec = json.dumps({"dataset": {"name": "scannet", "kind": "scannet", "options": options}})
    command = [sys.executable, "-m", "pipeline", "prepare", "--spec", spec, "--out", str(tmp_path / "out" / "manifest.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=registry.PACKAGE.parent)
    assert done.returncode == 2
    assert f"scan {VAL}: the .sens stream ends inside" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_someone_else_is_never_cleared(
    release: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """--out in the release itself: its exported frames and annotations have the names of the command's own folders."""
    root, options = release
    made.export(root, TRAIN)
    before = sorted(root.rglob("*"))
    spec = json.dumps({"dataset": {"name": "scannet", "kind": "scannet", "options": options}})
    assert main(["prepare", "--spec", spec, "--out", str(root / "manifest.json")]) == 2
    assert "posed_images, annotations that `prepare` has not made" in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_any_damage_is_a_message_or_does_no_harm(release: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Seeded cuts and changed bytes in every kind of file: never another exception than the project's own."""
    root, options = release
    made.export(root, TRAIN)
    files = sorted(path for path in root.rglob("*") if path.is_file() and OTHER not in path.name and TEST not in path.name)
    random = np.random.default_rng(3)
    refused = 0
    for number, path in enumerate(files):
        data = path.read_bytes()
        cut_at, places = int(random.integers(len(data))), random.integers(len(data), size=10)
        changed = bytearray(data)
        for place in places:
            changed[place] = int(random.integers(256))
        for case, damaged in enumerate((data[:cut_at], bytes(changed))):
            path.write_bytes(damaged)
            try:
                made.prepare(options | {"only": [TRAIN, VAL]}, tmp_path / f"{number}_{case}")
            except PipelineError:
                refused += 1
        path.write_bytes(data)
    assert refused > len(files)
