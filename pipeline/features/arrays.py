"""The only module that touches Zarr: one scene's array is one Zarr v3 array in one file, written and read at disk speed.

``features.zarr/{array}/{scene}/zarr.json`` describes a sharded array; ``c.0.0...`` holds its one shard:

    view 0 | view 1 | ... | index: (offset, bytes) uint64 per view | CRC-32C of the index, uint32

with the views' numbers as they are or packed (packing.py). That is what zarr-python writes (and reads: tests and ``features
verify`` do) and is fixed by the Zarr v3 specification, "sharding_indexed" codec. zarr-python makes the description; the bytes
are written and memory-mapped here, because going through its pipeline takes several copies of a scene. Nothing is read before
the description, size and index are right, and pages are brought in by a call that reports a failing disk as an error where
touching them would kill the process (pages.py).
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.features.checks import damaged
from pipeline.features.packing import Compression, unpack, zarr_codec
from pipeline.features.pages import bring_in
from pipeline.files import fsync

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

_CHECKSUM = struct.Struct("<I")

GROUP_FILE = "zarr.json"
"""Describes a group, beside its scenes: no scene can have that name."""


@lru_cache(maxsize=256)
def _description(shape: tuple[int, ...], dtype: str, compression: Compression) -> bytes:
    """zarr.json of an array (V,...) of one shard with one chunk per view."""
    import zarr
    from zarr.storage import MemoryStore

    content: dict[str, Buffer] = {}
    zarr.create_array(
        MemoryStore(content),
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shards=shape,
        compressors=None if compression == "none" else zarr_codec(np.dtype(dtype)),
        filters=None,
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    return content["zarr.json"].to_bytes()


@lru_cache(maxsize=1)
def _group() -> bytes:
    """zarr.json of a group."""
    import zarr
    from zarr.storage import MemoryStore

    content: dict[str, Buffer] = {}
    zarr.open_group(MemoryStore(content), mode="w", zarr_format=3)
    return content["zarr.json"].to_bytes()


def _index(lengths: Sequence[int]) -> bytes:
    """The index at the end of a shard whose chunks of these bytes lie one after the other, with its checksum."""
    starts = [0, *accumulate(lengths)]
    entries = struct.pack(f"<{2 * len(lengths)}Q", *(number for pair in zip(starts, lengths, strict=False) for number in pair))
    return entries + _CHECKSUM.pack(crc32c(entries))


def _chunk_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape[1:])) * np.dtype(dtype).itemsize


def _data_name(shape: tuple[int, ...]) -> str:
    return "c" + ".0" * len(shape)


class ArrayWriter:
    """One array (V,...) being written view by view. A context manager; ``close`` flushes everything to disk."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str, compression: Compression = "none"):
        self._folder, self._views = folder, shape[0]
        self._lengths: list[int] = []
        folder.mkdir(parents=True)
        (folder / "zarr.json").write_bytes(_description(shape, dtype, compression))
        self._stream = (folder / _data_name(shape)).open("wb", buffering=0)

    def append(self, stored: NDArray[np.uint8]) -> None:
        """Write the next view's bytes (n,), packed where the array is."""
        self._write(stored.data)
        self._lengths.append(len(stored))

    def _write(self, data: memoryview) -> None:
        """All of ``data``: a write may take a part of it, and the next one says why (disk full)."""
        while data:
            data = data[self._stream.write(data) :]

    def close(self) -> None:
        """Write the index and flush files and folder to disk. ValueError when a view is missing."""
        if len(self._lengths) != self._views:
            raise ValueError(f"{len(self._lengths)} of {self._views} views were written to {self._folder}")
        self._write(memoryview(_index(self._lengths)))
        os.fsync(self._stream.fileno())
        self._stream.close()
        fsync(self._folder / "zarr.json")
        fsync(self._folder)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self._stream.close()


class MappedArray:
    """One array (V,...) of a scene, memory-mapped. StoreError when its description, size or index is wrong."""

    def __init__(
        self, store: Path, name: str, scene_id: str, shape: tuple[int, ...], dtype: str, compression: Compression = "none"
    ):
        self.store, self.scene_id, self.name, self.shape, self.dtype = store, scene_id, name, shape, dtype
        self.packed = compression != "none"
        folder = store / name / scene_id
        try:
            found = json.loads((folder / "zarr.json").read_bytes())
            if _layout(found) != _layout(json.loads(_description(shape, dtype, compression))):
                how = f"zarr.json describes {found.get('data_type')}{found.get('shape')}, not {dtype}{shape}, {compression}"
                raise self.damaged(how)
            with (folder / _data_name(shape)).open("rb") as stream:
                status = os.fstat(stream.fileno())
                self.file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        except PermissionError:  # whole, perhaps: the fix for damage would remove it
            raise
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise self.damaged(f"{type(error).__name__}: {error}") from None
        self._starts = self._read_index()

    def _read_index(self) -> list[int]:
        """Where each view's bytes start, and where the last one's end."""
        views = self.shape[0]
        size = len(self._map) - 16 * views - _CHECKSUM.size
        if size < 0:
            raise self.damaged(f"{len(self._map)} bytes are fewer than its index has")
        lengths = struct.unpack_from(f"<{2 * views}Q", self._map, size)[1::2]
        if not self.packed and len(self._map) != views * _chunk_bytes(self.shape, self.dtype) + 16 * views + _CHECKSUM.size:
            raise self.damaged(f"{len(self._map)} bytes are not those of {views} views")
        starts = [0, *accumulate(lengths)]
        if starts[-1] != size or self._map[size:] != _index(lengths):
            raise self.damaged("the index of its views is wrong")
        if not self.packed and set(lengths) != {_chunk_bytes(self.shape, self.dtype)}:
            raise self.damaged("the index of its views is wrong")
        return starts

    def damaged(self, how: str) -> StoreError:
        """The error for an array whose bytes are not what was written."""
        return damaged(self.store, self.scene_id, f"{self.name}: {how}")

    def stored(self, number: int) -> NDArray[np.uint8]:
        """One view's bytes (n,) as stored, mapped."""
        return self._bytes(self._starts[number], self._starts[number + 1])

    def view(self, number: int) -> NDArray[Any]:
        """One view's numbers (...)."""
        return self.views(slice(number, number + 1))[0]

    def views(self, span: slice) -> NDArray[Any]:
        """Views ``span.start`` up to ``span.stop`` (n,...): unpacked, or mapped without a copy.

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
        """A view's bytes of a packed array as numbers, into ``out`` (...)."""
        try:
            unpack(stored, out)
        except ValueError as error:
            raise self.damaged(str(error)) from None

    def _bytes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Mapped bytes, in memory: a file that was cut or a disk that fails is a StoreError here, not a signal later."""
        found = np.frombuffer(self._map, dtype=np.uint8, count=stop - start, offset=start)
        try:
            bring_in(found)
        except OSError as error:
            raise self.damaged(f"{type(error).__name__}: {error}") from None
        return found


def _layout(description: dict[str, Any]) -> list[Any]:
    """What of a zarr.json decides where the numbers are."""
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


def _is_group(description: Path) -> bool:
    """Whether it is a group's zarr.json: one that a crash or a full disk cut short is not."""
    try:
        return bool(json.loads(description.read_bytes())["node_type"] == "group")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link (never what it points to); nothing when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class SceneArrays:
    """The arrays of one shard's ``features.zarr``."""

    def __init__(self, path: Path):
        self.path = path

    def create(
        self, name: str, scene_id: str, shape: tuple[int, ...], dtype: str, compression: Compression = "none"
    ) -> ArrayWriter:
        """A new array of a scene, to be filled view by view; its groups are made where they are missing."""
        for folder in (self.path, self.path / name):
            if not _is_group(folder / "zarr.json"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "zarr.json").write_bytes(_group())
                fsync(folder / "zarr.json")
        return ArrayWriter(self.path / name / scene_id, shape, dtype, compression)

    def open(
        self, name: str, scene_id: str, shape: tuple[int, ...], dtype: str, compression: Compression = "none"
    ) -> MappedArray:
        """A stored array. StoreError when it is missing or not of this shape, type and compression."""
        return MappedArray(self.path, name, scene_id, shape, dtype, compression)

    def read_with_zarr(self, name: str, scene_id: str) -> NDArray[Any]:
        """A whole array read by zarr-python alone: an independent check that the store is what the Zarr format says."""
        import zarr

        import pipeline.features.zarr_codec  # noqa: F401  (registers the codec of packed bfloat16)

        return np.asarray(zarr.open_array(self.path / name / scene_id, mode="r", zarr_format=3)[...])

    def flush(self) -> None:
        """Flush the groups' folders, so that new scenes are found after a power cut."""
        for folder in (*self._groups(), self.path):
            fsync(folder)

    def scenes(self) -> set[str]:
        """Names of everything that stands where scenes do."""
        return {found.name for group in self._groups() for found in group.iterdir() if found.name != GROUP_FILE}

    def _groups(self) -> list[Path]:
        return [folder for folder in self.path.iterdir() if folder.is_dir()] if self.path.is_dir() else []

    def bytes_on_disk(self, scene_id: str) -> int:
        """Bytes of all files of a scene (0 when there are none)."""
        files = (f for group in self._groups() for f in (group / scene_id).glob("**/*") if f.is_file())
        return sum(f.stat().st_size for f in files)

    def remove(self, scene_id: str) -> None:
        """Remove whatever stands where a scene does."""
        for group in self._groups():
            _remove(group / scene_id)

    def remove_all(self) -> None:
        """Remove the store; of one that lies elsewhere, behind a link, what is in it."""
        if self.path.is_symlink() and self.path.is_dir():
            for found in self.path.iterdir():
                _remove(found)
        else:
            _remove(self.path)
