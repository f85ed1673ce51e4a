"""Native reader of .sens streams, format version 4, little-endian, without a pass over the payloads.

Header: uint32 version; uint64 length and bytes of the sensor's name; four 4x4 float32 matrices, row-major (colour intrinsics,
colour extrinsics, depth intrinsics, depth extrinsics); int32 colour and depth compression; uint32 colour width, height, depth
width, height; float32 depth units per metre ("depth shift"); uint64 number of frames.
Frame: 4x4 float32 camera-to-world; uint64 colour and depth time stamps; uint64 colour and depth bytes; the two payloads.

Source: ScanNet's SensReader, "Data Formats" of its README. Frame headers are 96 bytes, so walking through a 2 GB stream reads
half a megabyte; payloads are read only of frames that are asked for.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DataError, FrameError
from pipeline.datasets.scannet.reading import AGAIN

VERSION = 4
JPEG = 2
RAW_USHORT, ZLIB_USHORT = 0, 1
LONGEST_NAME = 4096
LARGEST_SIDE = 16_384
LARGEST_SHIFT = 1e6
"""Depth units per metre of a stream are 1 to this (ScanNet: 1000); other numbers are damage and would empty the depth."""
_TAIL = struct.Struct("<64f2i4IfQ")
_FRAME = struct.Struct("<16f4Q")


@dataclass(frozen=True, slots=True)
class SensHeader:
    """Sizes are (height, width); matrices (4,4); ``depth_units_per_m`` raw depth units per metre; ``frames`` their number."""

    name: str
    color_intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    depth_compression: int
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_units_per_m: float
    frames: int


@dataclass(frozen=True, slots=True)
class SensFrame:
    """One frame's header: ``pose`` (4,4) camera to world, as stored; where its payloads are and how long."""

    index: int
    pose: NDArray[np.float64]
    color_at: int
    color_bytes: int
    depth_at: int
    depth_bytes: int


class SensFile:
    """An open stream. Use as a context manager; reads are positioned, so threads may share it."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise DataError("the .sens stream is missing", where=str(path), fix="download it, or name posed_images") from None
        except OSError as error:
            raise DataError(f"the .sens stream cannot be opened ({error.strerror})", where=str(path)) from None
        try:
            self._bytes = os.fstat(self._descriptor).st_size
            self.header, self._first = self._read_header()
        except DataError:
            self.close()
            raise

    def frames(self, step: int = 1) -> list[SensFrame]:
        """Headers of every ``step``-th frame (0, step, 2 step, ...). All headers are walked, so truncation is always found."""
        found: list[SensFrame] = []
        at = self._first
        for index in range(self.header.frames):
            *pose, _, _, color, depth = _FRAME.unpack(self._read(at, _FRAME.size, f"frame {index}"))
            start = at + _FRAME.size
            at = start + color + depth
            if at > self._bytes:
                raise self._truncated(f"frame {index}")
            if index % step == 0:
                matrix = np.array(pose, dtype=np.float64).reshape(4, 4)
                found.append(SensFrame(index, matrix, start, color, start + color, depth))
        return found

    def color(self, frame: SensFrame) -> bytes:
        """The frame's JPEG file."""
        return self._read(frame.color_at, frame.color_bytes, f"colour of frame {frame.index}")

    def depth(self, frame: SensFrame) -> NDArray[np.uint16]:
        """Raw depth units uint16 (H,W), 0 = invalid. Raises FrameError when the payload is damaged."""
        data = self._read(frame.depth_at, frame.depth_bytes, f"depth of frame {frame.index}")
        height, width = self.header.depth_size
        wanted = 2 * height * width
        if self.header.depth_compression == ZLIB_USHORT:
            try:  # one byte more than wanted at most: a damaged stream cannot fill the memory
                data = zlib.decompressobj().decompress(data, wanted + 1)
            except zlib.error as error:
                raise FrameError(
                    f"depth of frame {frame.index} is damaged ({error})", where=str(self.path), fix=AGAIN
                ) from None
        if len(data) != wanted:
            what = f"depth of frame {frame.index} has {len(data)} bytes, not 2 x {height} x {width}"
            raise FrameError(what, where=str(self.path), fix=AGAIN)
        return np.frombuffer(data, dtype="<u2").reshape(height, width).astype(np.uint16)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> SensFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self, at: int, size: int, what: str) -> bytes:
        if at + size > self._bytes:
            raise self._truncated(what)
        parts: list[bytes] = []
        while size > 0:  # one call may return less than asked for
            try:
                part = os.pread(self._descriptor, size, at)
            except OSError as error:
                raise DataError(f"the .sens stream cannot be read ({error.strerror})", where=str(self.path)) from None
            if not part:
                raise self._truncated(what)
            parts.append(part)
            at, size = at + len(part), size - len(part)
        return b"".join(parts)

    def _truncated(self, what: str) -> DataError:
        count = f" of {self.header.frames}" if what.startswith("frame") else ""
        return DataError(
            f"the .sens stream ends inside {what}{count} ({self._bytes} bytes)",
            where=str(self.path),
            fix="the download was cut off: download it again",
        )

    def _read_header(self) -> tuple[SensHeader, int]:
        version, length = struct.unpack("<IQ", self._read(0, 12, "the header"))
        if version != VERSION:
            raise DataError(
                f"the .sens stream has format version {version}",
                where=str(self.path),
                allowed=f"version {VERSION}, that of ScanNet v2",
                fix="download the released file (a damaged file looks like this, too)",
            )
        if length > LONGEST_NAME:
            raise DataError(f"the sensor's name has {length} bytes", where=str(self.path), fix=AGAIN)
        name = self._read(12, length, "the header").decode("utf-8", errors="replace")
        values = _TAIL.unpack(self._read(12 + length, _TAIL.size, "the header"))
        matrices = np.array(values[:64], dtype=np.float64).reshape(4, 4, 4)
        color, depth, color_w, color_h, depth_w, depth_h, shift, frames = values[64:]
        sizes = (color_h, color_w), (depth_h, depth_w)
        header = SensHeader(name, matrices[0], matrices[2], depth, *sizes, shift, frames)
        self._check(header, color)
        return header, 12 + length + _TAIL.size

    def _check(self, header: SensHeader, color_compression: int) -> None:
        faults = []
        if color_compression != JPEG:
            faults.append(f"colour compression {color_compression} (read is {JPEG}, JPEG)")
        if header.depth_compression not in (RAW_USHORT, ZLIB_USHORT):
            faults.append(f"depth compression {header.depth_compression} (read are {RAW_USHORT}, raw, and {ZLIB_USHORT}, zlib)")
        if not all(0 < side <= LARGEST_SIDE for side in (*header.color_size, *header.depth_size)):
            faults.append(f"image sizes {header.color_size} and {header.depth_size}")
        if not 1 <= header.depth_units_per_m <= LARGEST_SHIFT:
            faults.append(f"depth shift {header.depth_units_per_m}")
        if not header.frames or header.frames * _FRAME.size > self._bytes:
            faults.append(f"{header.frames} frames in {self._bytes} bytes")
        if faults:
            raise DataError(f"the .sens header has {', '.join(faults)}", where=str(self.path), fix=AGAIN)
