"""The reader of .sens streams against streams written field by field."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import scannet_files as made

from pipeline.core.errors import DataError, FrameError
from pipeline.datasets.scannet.frames import StreamFrames
from pipeline.datasets.scannet.sens import SensFile

SCAN = "scene0011_00"


def stream_file(folder: Path, data: bytes) -> Path:
    path = folder / "scan.sens"
    path.write_bytes(data)
    return path


def small(**changes: object) -> bytes:
    """Three frames of 2 x 3 pixels."""
    depths = [np.arange(6, dtype="<u2") + 100 * i for i in range(3)]
    frames = [(np.eye(4) * (i + 1), b"color%d" % i, zlib.compress(d.tobytes())) for i, d in enumerate(depths)]
    sizes = {
        "color_size": (4, 6),
        "depth_size": (2, 3),
        "color_intrinsics": np.diag([3, 4, 1, 1]),
        "depth_intrinsics": np.eye(4),
    }
    return made.sens_bytes(frames, **(sizes | changes))  # type: ignore[arg-type]


def test_every_field_is_read_where_it_stands(tmp_path: Path) -> None:
    with SensFile(stream_file(tmp_path, small())) as file:
        header = file.header
        assert (header.name, header.frames, header.depth_units_per_m) == ("StructureSensor", 3, 1000.0)
        assert (header.color_size, header.depth_size) == ((4, 6), (2, 3))
        np.testing.assert_array_equal(header.color_intrinsics, np.diag([3.0, 4, 1, 1]))
        frames = file.frames()
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.pose, np.eye(4) * (number + 1))
            assert file.color(frame) == b"color%d" % number
            np.testing.assert_array_equal(file.depth(frame), np.arange(6).reshape(2, 3) + 100 * number)


@pytest.mark.parametrize(("step", "indices"), [(1, [0, 1, 2]), (2, [0, 2]), (3, [0]), (50, [0])])
def test_any_step(tmp_path: Path, step: int, indices: list[int]) -> None:
    with SensFile(stream_file(tmp_path, small())) as file:
        assert [frame.index for frame in file.frames(step)] == indices


def test_payloads_of_skipped_frames_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made.stream(SCAN)
    path = stream_file(tmp_path, data)
    wanted: list[tuple[int, int]] = []
    true_pread = os.pread

    def recorded(descriptor: int, size: int, at: int) -> bytes:
        wanted.append((at, at + size))
        return true_pread(descriptor, size, at)

    monkeypatch.setattr("pipeline.datasets.scannet.sens.os.pread", recorded)
    with StreamFrames(path, step=made.STEP) as frames:
        for number in range(len(frames.ids)):
            frames.color(number)
            frames.depth_mm(number)
    at = data.find(made.NO_IMAGE)
    assert at > 0
    while at >= 0:
        assert not any(start < at + len(made.NO_IMAGE) and at < stop for start, stop in wanted)
        at = data.find(made.NO_IMAGE, at + 1)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    data = small()
    for length in {*range(0, len(data), 7), len(data) - 1}:
        with pytest.raises(DataError, match=r"ends inside|frames in"), SensFile(stream_file(tmp_path, data[:length])) as file:
            file.frames(100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "format version 3"),
        ({"compressions": (1, 1)}, "colour compression 1"),
        ({"compressions": (2, 2)}, "depth compression 2"),
        ({"shift": 0.0}, "depth shift"),
        ({"shift": float("nan")}, "depth shift"),
        ({"shift": 1e30}, "depth shift"),
        ({"depth_size": (0, 3)}, "image sizes"),
    ],
)
def test_other_streams_are_refused_with_file_and_reason(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        SensFile(stream_file(tmp_path, small(**changes)))
    assert "scan.sens" in str(error.value)


def test_what_is_no_stream_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        SensFile(tmp_path / "no.sens")
    with pytest.raises(DataError, match="format version"):
        SensFile(stream_file(tmp_path, b"\x00" * 1000))
    with pytest.raises(DataError, match="cannot be read"):
        SensFile(tmp_path).frames()


@pytest.mark.parametrize("payload", [b"", b"no zlib", zlib.compress(b"\x00" * 10), zlib.compress(b"\x00" * 100_000)])
def test_damaged_depth_names_the_frame(tmp_path: Path, payload: bytes) -> None:
    cameras = {"color_intrinsics": np.eye(4), "depth_intrinsics": np.eye(4)}
    data = made.sens_bytes([(np.eye(4), b"", payload)], depth_size=(2, 3), **cameras)
    with SensFile(stream_file(tmp_path, data)) as file, pytest.raises(FrameError, match="depth of frame 0"):
        file.depth(file.frames()[0])


def test_raw_depth_is_read_too(tmp_path: Path) -> None:
    depth = np.arange(6, dtype="<u2").reshape(2, 3)
    cameras = {"color_intrinsics": np.eye(4), "depth_intrinsics": np.eye(4)}
    data = made.sens_bytes([(np.eye(4), b"", depth.tobytes())], depth_size=(2, 3), compressions=(2, 0), **cameras)
    with SensFile(stream_file(tmp_path, data)) as file:
        np.testing.assert_array_equal(file.depth(file.frames()[0]), depth)


@pytest.mark.parametrize("shift", [1000.0, 5000.0, 4000.0])
def test_depth_becomes_millimetres_whatever_the_shift(tmp_path: Path, shift: float) -> None:
    built, _ = made.room(SCAN)
    with StreamFrames(stream_file(tmp_path, made.stream(SCAN, shift=shift)), step=made.STEP) as frames:
        depth = frames.depth_mm(frames.ids.index("00006"))
    usable = built.depth_mm[2] * (shift / 1000) <= 65_535
    wrapped = np.rint(built.depth_mm[2] * (shift / 1000)).astype("<u2")
    np.testing.assert_array_equal(depth[usable], built.depth_mm[2][usable])
    assert (depth[~usable] <= wrapped[~usable]).all()


def test_depth_beyond_the_range_of_the_files_is_invalid_not_wrapped(tmp_path: Path) -> None:
    cameras = {"color_intrinsics": np.eye(4), "depth_intrinsics": np.eye(4)}
    raw = np.array([[1, 100, 6553], [6554, 60_000, 0]], dtype="<u2")
    data = made.sens_bytes([(np.eye(4), b"", zlib.compress(raw.tobytes()))], depth_size=(2, 3), shift=100.0, **cameras)
    with StreamFrames(stream_file(tmp_path, data), step=1) as frames:
        np.testing.assert_array_equal(frames.depth_mm(0), [[10, 1000, 65_530], [0, 0, 0]])


def test_listed_frames_are_taken_in_their_order(tmp_path: Path) -> None:
    path = stream_file(tmp_path, made.stream(SCAN))
    with StreamFrames(path, step=7, listed=("00006", "00002")) as frames:
        assert frames.ids == ("00006", "00002")
    for wrong in ("00099", "frame1"):
        with pytest.raises(FrameError, match=wrong):
            StreamFrames(path, step=1, listed=("00000", wrong))
    with pytest.raises(FrameError, match="names a frame twice"):
        StreamFrames(path, step=1, listed=("2", "00002"))


def test_a_faulty_stream_is_closed_again(tmp_path: Path) -> None:
    path = stream_file(tmp_path, made.stream(SCAN, depth_intrinsics=np.zeros((4, 4))))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FrameError, match="focal"):
            StreamFrames(path, step=1)
    assert len(os.listdir("/proc/self/fd")) == before
