"""Frames of one scan under one interface, whether they come from its .sens stream or from an exported folder.

``candidates`` are the frames that could become views, in order; poses are as stored, not axis-aligned. Pixels are read of the
frames that were chosen, and of all candidates' depth when frames are chosen by what they see.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError, FrameError
from pipeline.core.files import entries
from pipeline.datasets.scannet.reading import AGAIN, read_bytes, read_text
from pipeline.datasets.scannet.sens import SensFile, SensFrame
from pipeline.scenes.conventions import DEPTH_UNIT_PER_M, checked_id
from pipeline.scenes.source_images import depth_values, image_size

_INDEX = re.compile(r"[0-9]{1,9}")


class ScanFrames(ABC):
    """Frames of one scan. ``ids`` and ``poses`` (F,4,4) of the candidates; intrinsics (3,3); sizes (height, width)."""

    where: str
    ids: tuple[str, ...]
    poses: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    image_size: tuple[int, int]
    depth_size: tuple[int, int]

    @abstractmethod
    def color(self, number: int) -> bytes:
        """The JPEG file of a candidate."""

    @abstractmethod
    def depth_mm(self, number: int) -> NDArray[np.uint16]:
        """Depth of a candidate in millimetres (H,W), 0 = invalid."""

    def close(self) -> None:  # noqa: B027 - a folder has nothing to close
        """Close what is open."""

    def __enter__(self) -> ScanFrames:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class StreamFrames(ScanFrames):
    """Every ``step``-th frame of a .sens stream, or exactly the ``listed`` ones. Ids are frame numbers of five digits."""

    def __init__(self, path: Path, *, step: int, listed: Sequence[str] | None = None):
        self.where = str(path)
        self._file = SensFile(path)
        try:
            self._open(path, step, listed)
        except DataError:
            self._file.close()
            raise

    def _open(self, path: Path, step: int, listed: Sequence[str] | None) -> None:
        header = self._file.header
        self.image_size, self.depth_size = header.color_size, header.depth_size
        self.intrinsics = _camera(header.color_intrinsics, self.image_size, f"{path}, colour")
        self.depth_intrinsics = _camera(header.depth_intrinsics, self.depth_size, f"{path}, depth")
        self._frames = self._file.frames(step if listed is None else 1)
        if listed is not None:
            self._frames = self._named(listed)
        self.ids = tuple(f"{frame.index:05d}" for frame in self._frames)
        self.poses = np.array([frame.pose for frame in self._frames]).reshape(-1, 4, 4)

    def _named(self, listed: Sequence[str]) -> list[SensFrame]:
        wrong = [i for i in listed if not _INDEX.fullmatch(i) or int(i) >= len(self._frames)]
        if wrong:
            raise _not_there(wrong, f"the stream has frames 0 to {len(self._frames) - 1}", self.where)
        if len({int(i) for i in listed}) != len(listed):
            raise FrameError("the frame list names a frame twice", where=self.where, fix="correct the frame list")
        return [self._frames[int(i)] for i in listed]

    def color(self, number: int) -> bytes:
        return self._file.color(self._frames[number])

    def depth_mm(self, number: int) -> NDArray[np.uint16]:
        raw, units = self._file.depth(self._frames[number]), self._file.header.depth_units_per_m
        if units == DEPTH_UNIT_PER_M:
            return raw
        millimetres = np.rint(raw * (DEPTH_UNIT_PER_M / units))
        return np.where(millimetres <= np.iinfo(np.uint16).max, millimetres, 0).astype(np.uint16)

    def close(self) -> None:
        self._file.close()


class FolderFrames(ScanFrames):
    """An exported folder: ``{frame}.jpg``, ``{frame}.png`` (depth uint16 mm), ``{frame}.txt`` (pose), two intrinsics."""

    def __init__(self, folder: Path, *, listed: Sequence[str] | None = None):
        self.where, self._folder = str(folder), folder
        if not folder.is_dir():
            raise DataError("the scan's exported folder is missing", where=str(folder), fix="export it, or set source: sens")
        present = sorted((path.stem for path in entries(folder, "*.jpg")), key=_time_order)
        if listed is not None:
            missing = sorted(set(listed) - set(present))
            if missing:
                raise _not_there(missing, f"{len(present)} frames are in the folder", self.where)
        self.ids = tuple(checked_id(i, what="frame id", where=self.where) for i in (present if listed is None else listed))
        if not self.ids:
            nested = (folder / "color").is_dir()
            fix = (
                "kind posed_rgbd reads folders color/, depth/, pose/; here set source: sens"
                if nested
                else "export the scan again"
            )
            raise FrameError("the exported folder has no *.jpg frames", where=self.where, fix=fix)
        self.poses = np.array([_matrix(folder / f"{i}.txt", "the pose") for i in self.ids])
        colour, depth = folder / "intrinsic.txt", folder / "depth_intrinsic.txt"
        self.image_size = image_size(self.color(0), f"{folder / self.ids[0]}.jpg")
        height, width = self._depth(0).shape
        self.depth_size = height, width
        self.intrinsics = _camera(_matrix(colour, "the colour intrinsics"), self.image_size, str(colour))
        self.depth_intrinsics = _camera(_matrix(depth, "the depth intrinsics"), self.depth_size, str(depth))

    def color(self, number: int) -> bytes:
        return read_bytes(self._folder / f"{self.ids[number]}.jpg", "a colour frame", fix="export the scan again")

    def depth_mm(self, number: int) -> NDArray[np.uint16]:
        depth = self._depth(number)
        if depth.shape != self.depth_size:
            where = f"{self._folder / self.ids[number]}.png"
            raise FrameError(f"a depth frame has shape {depth.shape}", where=where, allowed=str(self.depth_size))
        return depth

    def _depth(self, number: int) -> NDArray[np.uint16]:
        path = self._folder / f"{self.ids[number]}.png"
        return depth_values(read_bytes(path, "a depth frame", fix="export the scan again"), str(path))


def _time_order(stem: str) -> tuple[bool, int, str]:
    """Numbers by their value ("9" before "10"), then other names."""
    numbered = bool(_INDEX.fullmatch(stem))
    return not numbered, int(stem) if numbered else 0, stem


def _matrix(path: Path, what: str) -> NDArray[np.float64]:
    """A 4x4 matrix of a text file; -inf and nan are kept: they mark frames without a pose."""
    text = read_text(path, what, fix="export the scan again")
    try:  # programs on Windows print "-1.#INF"
        return np.array([math.nan if ".#" in word else float(word) for word in text.split()]).reshape(4, 4)
    except ValueError:
        raise FrameError(f"{what} is not 4 rows of 4 numbers", where=str(path), fix="export the scan again") from None


def _camera(matrix: NDArray[np.float64], size: tuple[int, int], where: str) -> NDArray[np.float64]:
    """The 3x3 part of intrinsics of images of ``size`` (height, width)."""
    camera = matrix[:3, :3]
    if not np.isfinite(camera).all() or camera[0, 0] <= 0 or camera[1, 1] <= 0:
        raise FrameError("intrinsics without positive focal lengths", where=where, fix=AGAIN)
    if not (0 <= camera[0, 2] <= size[1] and 0 <= camera[1, 2] <= size[0]):
        x, y = camera[:2, 2]
        raise FrameError(
            f"intrinsics with the principal point {x:.1f}, {y:.1f} in images of {size[1]}x{size[0]} pixels",
            where=where,
            allowed="a principal point inside the image",
            fix="they are of other images (colour and depth mixed up?) or damaged",
        )
    return camera


def _not_there(missing: Sequence[str], allowed: str, where: str) -> FrameError:
    listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    what = f"{len(missing)} frames of the frame list are not there: {listed}"
    return FrameError(what, where=where, allowed=allowed, fix="export them, set source: sens, or leave frame_lists out")
