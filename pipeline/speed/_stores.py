"""The feature store against the reference recipe (one compressed float32 file per scene), raw numpy.memmap and
other formats.

Fairness: all are measured in turn, round by round. The reference is not flushed to disk, ours and the raw file are. Our writing
starts from float32 features and ends with checksums, journal and folders flushed; the raw file gets ready-made bfloat16 bytes
and one fsync. A first read verifies every byte; the reference verifies its zip's checksums, the raw file nothing. Ours uses a
few threads where there is computing to share (its default); NumPy has one for either of the others. zarr-python and
safetensors (_formats.py) get ready-made bits, too, and flush nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.features.arrays import SceneArrays
from pipeline.features.dtypes import Compression, to_bfloat16_bits
from pipeline.features.spec import StoredDtype
from pipeline.features.store import FeatureReader, FeatureWriter
from pipeline.speed._data import SPECIAL, Shape, features_of, reference_tokens
from pipeline.speed._formats import Format, all_formats
from pipeline.speed._measure import Row, drop_cache, interleaved
from pipeline.teachers.base import TeacherFeatures

REFERENCE, RAW = "savez_compressed float32", "numpy.memmap, raw bytes"
VARIANTS: tuple[tuple[bool, StoredDtype, Compression], ...] = (
    (False, "bfloat16", "lossless"),
    (True, "bfloat16", "lossless"),
    (False, "bfloat16", "none"),
    (True, "bfloat16", "none"),
    (False, "int8", "none"),
    (True, "int8", "none"),
)
"""(student's grid, number format, compression) of the stores that are measured, the default first."""

Prepare = Callable[[], Callable[[], object]]


class _Reference:
    """The reference recipe."""

    def __init__(self, folder: Path):
        self.path = folder / "reference.npz"

    def write(self, tokens: NDArray[np.float32]) -> float:
        """Write one scene and return the seconds: it takes so long that one is enough."""
        return interleaved({"": lambda: partial(np.savez_compressed, self.path, tokens[None])}, 1)[""]

    def read(self) -> object:
        with np.load(self.path) as content:
            return content["arr_0"]


class _Raw:
    """The limit: ready-made bytes through numpy.memmap, one file per scene, flushed and fsynced like ours."""

    def __init__(self, folder: Path, bits: NDArray[np.uint16]):
        self.folder, self.bits, self._numbers = folder / "raw", bits, count()
        self.folder.mkdir()

    def write(self) -> None:
        target = self.folder / str(next(self._numbers))
        mapped = np.memmap(target, dtype=self.bits.dtype, mode="w+", shape=self.bits.shape)
        mapped[...] = self.bits
        mapped.flush()
        del mapped
        for place in (target, self.folder):
            descriptor = os.open(place, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def _mapped(self) -> NDArray[np.uint16]:
        return np.memmap(self.folder / "0", dtype=self.bits.dtype, mode="r", shape=self.bits.shape)

    def copied(self) -> object:
        return np.array(self._mapped())

    def cold(self) -> Callable[[], object]:
        drop_cache([self.folder / "0"])
        return self.copied


class _Store:
    """A store of ours in one variant."""

    def __init__(
        self, folder: Path, shape: Shape, features: TeacherFeatures, pooled: bool, dtype: StoredDtype, compression: Compression
    ):
        grid = f"{shape.student} x {shape.student}" if pooled else "native"
        self.pooled, self.packed = pooled, compression != "none"
        self.name = f"{grid} grid, {dtype}{f' {compression}' if self.packed else ''}"
        self.against_raw = not pooled and dtype == "bfloat16"
        self.shape, self.features, self.folder = shape, features, folder / f"{dtype}_{compression}_{pooled}"
        self.writer = FeatureWriter(self.folder, shape.spec(pooled=pooled, dtype=dtype, compression=compression))
        self._numbers, self._views = count(), self._cycle()

    def write(self) -> None:
        self.writer.write(f"scene{next(self._numbers):04d}", self.shape.frames, self.features)

    def finish(self) -> float:
        """Finish the store; return the bytes per scene."""
        counts = self.writer.finish()["counts"]
        self.writer.close()
        return counts["bytes"] / counts["scenes"]

    def error(self) -> float:
        """Return the largest 1 - cosine between a token before and after storing: measured for int8, else a bound."""
        return self._reader().cosine_error("scene0000")

    def _cycle(self) -> Iterator[int]:
        return (number % self.shape.views for number in count())

    def _reader(self) -> FeatureReader:
        return FeatureReader([self.folder / "manifest.json"])

    def _decoded(self, reader: FeatureReader) -> object:
        return reader.read("scene0000", self.shape.frames).tokens

    def _stored(self, reader: FeatureReader) -> object:
        return reader.read_stored("scene0000", self.shape.frames).tokens

    def _by_zarr(self) -> object:
        return SceneArrays(self.folder / "features.zarr").read_with_zarr("tokens", "scene0000")

    def _tensor(self, reader: FeatureReader) -> object:
        return reader.read_tensor("scene0000", self.shape.frames)

    def _copied(self, reader: FeatureReader) -> object:
        return np.array(reader.read_stored("scene0000", self.shape.frames).tokens)

    def runs(self) -> dict[str, Prepare]:
        """Return the runs. First reads open a reader of their own each time (opening the manifest is not timed)."""
        known = self._reader()
        self._decoded(known)
        runs: dict[str, Prepare] = {
            "decoded": lambda: partial(self._decoded, self._reader()),
            "decoded again": lambda: partial(self._decoded, known),
            "tensor": lambda: partial(self._tensor, self._reader()),
            "view": lambda: partial(self._reader().read_view, "scene0000", next(self._views)),
        }
        if self.against_raw:
            runs["stored"] = lambda: partial(self._stored, self._reader())
            runs["by zarr"] = partial(_bound, self._by_zarr)
        if self.against_raw and not self.packed:
            runs["copied"] = lambda: partial(self._copied, self._reader())
            runs["copied again"] = lambda: partial(self._copied, known)
        return runs

    def cold(self) -> Callable[[], object]:
        reader = self._reader()
        drop_cache([path for path in self.folder.glob("features.zarr/**/*") if path.is_file()])
        return partial(self._stored if self.packed else self._copied, reader)


def _bound(run: Callable[[], object]) -> Callable[[], object]:
    return run


def measure(folder: Path, shape: Shape, scenes: int, repeats: int, say: Callable[[str], None]) -> list[Row]:
    """Measure all bytes and times of the store. ``scenes`` are written per store, ``repeats`` rounds are read."""
    folder.mkdir()
    tokens = reference_tokens(shape)
    features, reference = features_of(shape, tokens), _Reference(folder)
    say("reference recipe: np.savez_compressed of one scene")
    found = {"reference write": reference.write(tokens), "reference bytes": float(reference.path.stat().st_size)}
    del tokens
    raw = _Raw(folder, to_bfloat16_bits(features.tokens))
    stores = [_Store(folder, shape, features, *variant) for variant in VARIANTS]
    formats = all_formats(folder, raw.bits)
    say(f"writing {scenes} scenes: ours in {len(stores)} variants, raw bytes")
    writes: dict[str, Prepare] = {f"{store.name} write": partial(_bound, store.write) for store in stores}
    writes |= {f"{other.name} write": partial(_bound, other.write) for other in formats}
    found |= interleaved({"raw write": lambda: raw.write, **writes}, scenes)
    found |= {f"{other.name} bytes": other.bytes() for other in formats}
    found |= {f"{store.name} bytes": store.finish() for store in stores}
    found |= {f"{store.name} error": store.error() for store in stores}
    say(f"reading one scene, {repeats} rounds: reference, raw bytes, ours")
    runs: dict[str, Prepare] = {"reference read": lambda: reference.read, "raw copied": lambda: raw.copied}
    runs |= {f"{other.name} read": partial(_bound, other.read) for other in formats}
    for store in stores:
        runs |= {f"{store.name} {name}": prepare for name, prepare in store.runs().items()}
    found |= interleaved(runs, repeats)
    # Last: pages that come back from the disk lie in smaller pieces than written ones, which slows later warm reads down.
    cold = {f"{store.name} cold": store.cold for store in stores if store.against_raw}
    found |= interleaved({"raw cold": raw.cold, **cold}, repeats)
    rows: list[Row] = []
    for store in stores:
        rows += _against_reference(store, shape, found)
        if store.against_raw:
            rows += _against_raw(store, found) + _against_zarr(store, found)
            rows += [row for other in formats for row in _against_format(store, other, found)]
    return rows


def _against_reference(store: _Store, shape: Shape, found: dict[str, float]) -> list[Row]:
    name, other, pooled = store.name, REFERENCE, store.pooled
    plain = 4.0 * shape.views * (SPECIAL + shape.rows * shape.cols) * shape.dim
    size, write, read = found[f"{name} bytes"], found[f"{name} write"], found["reference read"]
    averaged = "averaged into the grid and " if pooled else ""
    target = 1 / 10 if pooled else 1 / 2
    decoded, again = found[f"{name} decoded"], found[f"{name} decoded again"]
    whole = "float32, verified; the other reads the whole file"
    exact = f"storing turns a token by 1 - cosine <= {found[f'{name} error']:.2g}"
    return [
        Row(f"{name}: bytes of a scene", size, found["reference bytes"], other, "bytes", "smaller", target, exact),
        Row(f"{name}: bytes of a scene", size, plain, "float32, uncompressed", "bytes", "smaller", None, "computed"),
        Row(f"{name}: write a scene", write, found["reference write"], other, "s", "faster", 25, averaged + "on disk"),
        Row(f"{name}: read a scene", decoded, read, other, "s", "faster", 15, "float32, verified"),
        Row(f"{name}: read as bfloat16 tensor", found[f"{name} tensor"], read, other, "s", "faster", 15, "verified"),
        Row(f"{name}: read it again", again, read, other, "s", "faster", None, "float32"),
        Row(f"{name}: read one view", found[f"{name} view"], read, other, "s", "faster", 100, whole),
    ]


def _against_raw(store: _Store, found: dict[str, float]) -> list[Row]:
    name = store.name

    def row(what: str, ours: str, raw: str, target: float | None, note: str) -> Row:
        return Row(f"{name}: {what}", found[f"{name} {ours}"], found[f"raw {raw}"], RAW, "s", "faster", target, note)

    written = row("write a scene", "write", "write", 0.5, "ours from float32; both flushed")
    if store.packed:
        return [
            written,
            row("read, unpacked", "stored", "copied", 0.3, "ours verified; the same numbers; warm"),
            row("read, unpacked, cold", "cold", "cold", 0.3, "ours verified; page cache dropped"),
        ]
    return [
        written,
        row("read, bytes as stored", "stored", "copied", 0.6, "ours verified and mapped, the other copied; warm"),
        row("read, bytes copied", "copied", "copied", None, "ours verified; warm"),
        row("read, bytes copied again", "copied again", "copied", 0.6, "warm"),
        row("read, bytes copied, cold", "cold", "cold", 0.6, "ours verified; page cache dropped"),
    ]


def _ours(store: _Store) -> str:
    """Return which of our reads ends with all numbers in memory of their own."""
    return "stored" if store.packed else "copied"


def _against_zarr(store: _Store, found: dict[str, float]) -> list[Row]:
    read = found[f"{store.name} {_ours(store)}"]
    note = "the same files; ours verified; warm"
    return [Row(f"{store.name}: read", read, found[f"{store.name} by zarr"], "zarr-python's reader", "s", "faster", None, note)]


def _against_format(store: _Store, other: Format, found: dict[str, float]) -> list[Row]:
    name = store.name
    size, write, read = (found[f"{other.name} {what}"] for what in ("bytes", "write", "read"))
    own = found[f"{name} {_ours(store)}"]
    return [
        Row(f"{name}: bytes of a scene", found[f"{name} bytes"], size, other.name, "bytes", "smaller", None, "bfloat16"),
        Row(f"{name}: write a scene", found[f"{name} write"], write, other.name, "s", "faster", None, "ours flushed"),
        Row(f"{name}: read", own, read, other.name, "s", "faster", None, "ours verified; warm"),
    ]
