"""Views of one stored array: memory-mapped, in memory before they are used, compared with their checksums, unpacked.

Nothing is read before the description, size and index are right, nothing corrupt is ever unpacked, and pages are brought in by
a call that reports a failing disk as an error where touching them would kill the process.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import StoreError
from pipeline.features.arrays import CHECKSUM, chunk_bytes, data_name, description, index_of
from pipeline.features.checks import damaged, view_checksum
from pipeline.features.dtypes import Compression, unpack
from pipeline.features.parallel import SMALL_BYTES, Scratch, each

_POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14, which Python has no name for."""


@lru_cache(maxsize=1)
def _madvise() -> Callable[[int, int, int], int] | None:
    """Return the C library's function; None on systems where the number above means something else."""
    if sys.platform != "linux":
        return None
    found = ctypes.CDLL(None, use_errno=True).madvise
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return found


def bring_in(mapped: NDArray[np.uint8]) -> None:
    """Have all pages of mapped bytes (n,) in memory. Raise OSError when the disk fails or the file is shorter now.

    ``mmap.madvise`` does the same but lets no other thread run meanwhile: 130 ms for 300 MB of a local disk, more of a
    network's, in which a training could launch no kernel. A call through ctypes does.

    Nothing happens on systems that have no such call (Linux before 5.14, others).
    """
    madvise = _madvise()
    if madvise is None or not mapped.nbytes:
        return
    start = mapped.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    stop = mapped.ctypes.data + mapped.nbytes
    if madvise(start, stop - start, _POPULATE_READ) and ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class MappedArray:
    """One array (V,...) of a scene, memory-mapped. Raise StoreError when its description, size or index is wrong.

    ``frame_ids``: of the views, as zarr shows them (the manifest's are those that count).
    """

    def __init__(
        self, store: Path, name: str, scene_id: str, shape: tuple[int, ...], dtype: str, compression: Compression = "none"
    ):
        self.store, self.scene_id, self.name, self.shape, self.dtype = store, scene_id, name, shape, dtype
        self.packed = compression != "none"
        folder = store / name / scene_id
        try:
            found = json.loads((folder / "zarr.json").read_bytes())
            if _layout(found) != _layout(json.loads(description(shape, dtype, compression))):
                how = f"zarr.json describes {found.get('data_type')}{found.get('shape')}, not {dtype}{shape}, {compression}"
                raise self.damaged(how)
            self.frame_ids: list[str] | None = found.get("attributes", {}).get("frame_ids")
            with (folder / data_name(shape)).open("rb") as stream:
                status = os.fstat(stream.fileno())
                self.file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        except PermissionError:
            raise  # whole, perhaps: the fix for damage would remove it
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise self.damaged(f"{type(error).__name__}: {error}") from None
        self._starts = self._read_index()

    def _read_index(self) -> list[int]:
        """Return where each view's bytes start, and where the last one's end."""
        views = self.shape[0]
        size = len(self._map) - 16 * views - CHECKSUM.size
        if size < 0:
            raise self.damaged(f"{len(self._map)} bytes are fewer than its index has")
        lengths = struct.unpack_from(f"<{2 * views}Q", self._map, size)[1::2]
        if not self.packed and len(self._map) != views * chunk_bytes(self.shape, self.dtype) + 16 * views + CHECKSUM.size:
            raise self.damaged(f"{len(self._map)} bytes are not those of {views} views")
        starts = [0, *accumulate(lengths)]
        if starts[-1] != size or self._map[size:] != index_of(lengths):
            raise self.damaged("the index of its views is wrong")
        if not self.packed and set(lengths) != {chunk_bytes(self.shape, self.dtype)}:
            raise self.damaged("the index of its views is wrong")
        return starts

    def damaged(self, how: str) -> StoreError:
        """Return the error for an array whose bytes are not what was written."""
        return damaged(self.store, self.scene_id, f"{self.name}: {how}")

    def stored(self, number: int) -> NDArray[np.uint8]:
        """Return one view's stored bytes (n,), mapped."""
        return self._bytes(self._starts[number], self._starts[number + 1])

    def view(self, number: int) -> NDArray[Any]:
        """Return one view's numbers (...)."""
        return self.views(slice(number, number + 1))[0]

    def views(self, span: slice) -> NDArray[Any]:
        """Return views ``span.start`` up to ``span.stop`` (n,...): unpacked, or mapped without a copy.

        A mapped array may be written to, which never reaches the file.
        """
        shape = (span.stop - span.start, *self.shape[1:])
        if not self.packed:
            flat = self._bytes(self._starts[span.start], self._starts[span.stop])
            return flat.view(np.dtype(self.dtype).newbyteorder("<")).reshape(shape)
        found = np.empty(shape, dtype=self.dtype)
        for number, out in zip(range(span.start, span.stop), found, strict=True):
            self.unpack(self.stored(number), out)
        return found

    def unpack(self, stored: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Unpack a view's bytes of a packed array into ``out`` (...)."""
        try:
            unpack(stored, out)
        except ValueError as error:
            raise self.damaged(str(error)) from None

    def _bytes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return mapped bytes, in memory. Raise StoreError for a cut file or a failing disk, instead of a signal later."""
        found = np.frombuffer(self._map, dtype=np.uint8, count=stop - start, offset=start)
        try:
            bring_in(found)
        except OSError as error:
            raise self.damaged(f"{type(error).__name__}: {error}") from None
        return found


def _layout(description: dict[str, Any]) -> list[Any]:
    """Return what of a zarr.json decides where the numbers are."""
    sharding = description["codecs"][0]
    inner = sharding["configuration"]
    return [
        description["shape"],
        description["data_type"],
        description["chunk_grid"]["configuration"]["chunk_shape"],
        description["chunk_key_encoding"],
        [codec["name"] for codec in description["codecs"]],
        inner["chunk_shape"],
        inner.get("index_location", "end"),
        [[codec["name"], codec.get("configuration") if codec["name"] == "blosc" else None] for codec in inner["codecs"]],
        [codec["name"] for codec in inner["index_codecs"]],
    ]


class VerifiedArray:
    """One array (V,...) of a scene. ``checksums`` of its views as stored, ``seen`` (V bytes) which are known to be right.

    Several threads may use it, and several of it may share ``seen``: setting a byte needs no lock.
    """

    def __init__(self, array: MappedArray, checksums: tuple[str, ...], frame_ids: tuple[str, ...], seen: bytearray):
        self.array, self._checksums, self._frame_ids, self._seen = array, checksums, frame_ids, seen

    def check(self, view: int) -> NDArray[np.uint8]:
        """Return a view's stored bytes, mapped. Raise StoreError when they are not what was written."""
        stored = self.array.stored(view)
        if not self._seen[view]:
            if view_checksum(stored) != self._checksums[view]:
                how = f"checksum of {self.array.name} of view {view}, frame {self._frame_ids[view]!r}, is wrong"
                raise damaged(self.array.store, self.array.scene_id, how)
            self._seen[view] = 1
        return stored

    def view(self, view: int, scratch: Scratch) -> NDArray[Any]:
        """Return a view's numbers (...): mapped, or unpacked into ``scratch``, which the next view overwrites."""
        stored = self.check(view)
        if not self.array.packed:
            return self.array.view(view)
        numbers = scratch.array(self.array.shape[1:], self.array.dtype)
        self.array.unpack(stored, numbers)
        return numbers

    def views(self, span: slice, threads: int) -> NDArray[Any]:
        """Return views ``span.start`` up to ``span.stop`` (n,...): mapped without a copy, or unpacked by ``threads``."""
        if not self.array.packed:
            for view in range(span.start, span.stop):
                self.check(view)
            return self.array.views(span)
        numbers = np.empty((span.stop - span.start, *self.array.shape[1:]), dtype=self.array.dtype)

        def unpack(number: int) -> None:
            self.array.unpack(self.check(span.start + number), numbers[number])

        each(unpack, len(numbers), threads if numbers.nbytes > SMALL_BYTES else 1)
        return numbers
