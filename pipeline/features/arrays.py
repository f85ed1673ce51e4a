"""The only module that touches Zarr: one scene's array is one Zarr v3 array in one file, written and read at disk speed.

``features.zarr/{array}/{scene}/zarr.json`` describes a sharded array; ``c.0.0...`` holds its one shard:

    view 0 | view 1 | ... | index: (offset, bytes) uint64 per view | CRC-32C of the index, uint32

with the views' numbers as they are or packed by Blosc (dtypes.py). zarr-python writes the same form (and reads it: tests and
``features verify`` do); the Zarr v3 specification fixes it, "sharding_indexed" codec. zarr-python makes the description;
the bytes are written here and memory-mapped in mapped.py, because going through its pipeline takes several copies of a scene.
The store's group has the spec as its attributes, an array its ordered frame ids and the names of its axes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from crc32c import crc32c
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from pipeline.core.files import fsync
from pipeline.features.dtypes import BLOSC, Compression
from pipeline.features.spec import ArrayType

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

CHECKSUM = struct.Struct("<I")

GROUP_FILE = "zarr.json"
"""Describes a group, beside its scenes: no scene can have that name."""


@lru_cache(maxsize=256)
def description(shape: tuple[int, ...], dtype: str, compression: Compression, axes: tuple[str, ...] = ()) -> bytes:
    """Return the zarr.json of an array (V,...): one shard, one chunk per view, no attributes. ``axes`` name a view's."""
    packed = BloscCodec(typesize=np.dtype(dtype).itemsize, shuffle="bitshuffle", **BLOSC)

    content: dict[str, Buffer] = {}
    zarr.create_array(
        MemoryStore(content),
        shape=shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        shards=shape,
        compressors=None if compression == "none" else packed,
        filters=None,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=("view", *axes) if axes else None,
    )
    return content["zarr.json"].to_bytes()


@lru_cache(maxsize=1)
def _group() -> bytes:
    """Return the zarr.json of a group."""
    content: dict[str, Buffer] = {}
    zarr.open_group(MemoryStore(content), mode="w", zarr_format=3)
    return content["zarr.json"].to_bytes()


def _with(description: bytes, attributes: Mapping[str, Any]) -> bytes:
    """Return a zarr.json with these attributes."""
    return json.dumps(json.loads(description) | {"attributes": attributes}, indent=2).encode()


def index_of(lengths: Sequence[int]) -> bytes:
    """Return the index at the end of a shard with consecutive chunks of these sizes in bytes, with its checksum."""
    starts = [0, *accumulate(lengths)]
    entries = struct.pack(f"<{2 * len(lengths)}Q", *(number for pair in zip(starts, lengths, strict=False) for number in pair))
    return entries + CHECKSUM.pack(crc32c(entries))


def chunk_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape[1:])) * np.dtype(dtype).itemsize


def data_name(shape: tuple[int, ...]) -> str:
    return "c" + ".0" * len(shape)


class ArrayWriter:
    """One array (V,...) being written view by view. A context manager; ``close`` flushes everything to disk."""

    def __init__(self, folder: Path, frame_ids: Sequence[str], kind: ArrayType):
        self._folder, self._views = folder, len(frame_ids)
        shape = (self._views, *kind.shape)
        self._lengths: list[int] = []
        folder.mkdir(parents=True)
        said = description(shape, kind.dtype, kind.compression, kind.axes)
        (folder / "zarr.json").write_bytes(_with(said, {"frame_ids": list(frame_ids)}))
        self._stream = (folder / data_name(shape)).open("wb", buffering=0)

    def append(self, stored: NDArray[np.uint8]) -> None:
        """Write the next view's bytes (n,), packed where the array is."""
        self._write(stored.data)
        self._lengths.append(len(stored))

    def _write(self, data: memoryview) -> None:
        """Write all of ``data``: a single write may be partial, and only the next one reports why (disk full)."""
        while data:
            data = data[self._stream.write(data) :]

    def close(self) -> None:
        """Write the index and flush files and folder to disk. Raise ValueError when a view is missing."""
        if len(self._lengths) != self._views:
            raise ValueError(f"{len(self._lengths)} of {self._views} views were written to {self._folder}")
        self._write(memoryview(index_of(self._lengths)))
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


def _holds(path: Path, content: bytes) -> bool:
    """Return whether it is a file with this content: one that a crash or a full disk cut short is not."""
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link (never what it points to); nothing when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class SceneArrays:
    """The arrays of one shard's ``features.zarr``. ``attributes``: its group's zarr attributes, for other readers."""

    def __init__(self, path: Path, attributes: Mapping[str, Any] | None = None):
        self.path, self._attributes = path, attributes or {}

    def create(self, name: str, scene_id: str, frame_ids: Sequence[str], kind: ArrayType) -> ArrayWriter:
        """Create a scene's array, to be filled view by view, and any missing groups."""
        for folder, attributes in ((self.path, self._attributes), (self.path / name, {})):
            content = _with(_group(), attributes)
            if not _holds(folder / GROUP_FILE, content):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / GROUP_FILE).write_bytes(content)
                fsync(folder / GROUP_FILE)
        return ArrayWriter(self.path / name / scene_id, frame_ids, kind)

    def read_with_zarr(self, name: str, scene_id: str) -> NDArray[Any]:
        """Read a whole array with zarr-python alone: an independent check that the store follows the Zarr format."""
        return np.asarray(zarr.open_array(self.path / name / scene_id, mode="r", zarr_format=3)[...])

    def flush(self) -> None:
        """Flush the groups' folders to disk, so that new scenes survive a power cut."""
        for folder in (*self._groups(), self.path):
            fsync(folder)

    def scenes(self) -> set[str]:
        """Return the names of all entries where scenes are stored."""
        return {found.name for group in self._groups() for found in group.iterdir() if found.name != GROUP_FILE}

    def _groups(self) -> list[Path]:
        return [folder for folder in self.path.iterdir() if folder.is_dir()] if self.path.is_dir() else []

    def bytes_on_disk(self, scene_id: str) -> int:
        """Return the bytes of all files of a scene (0 when there are none)."""
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
