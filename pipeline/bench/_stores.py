"""The feature store against the reference recipe (one compressed float32 file per scene) and against raw numpy.memmap.

Fairness: the reference is not flushed to disk, ours and the raw file are. Our writing starts from float32 features and ends
with verified-by-checksum files, journal and folders flushed; the raw file gets ready-made bfloat16 bytes and one fsync. First
reads verify every byte; the raw file verifies nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.bench._data import SPECIAL, Shape, features_of, reference_tokens
from pipeline.bench._measure import Row, drop_cache, median_s, times
from pipeline.features.numbers import to_bfloat16_bits
from pipeline.features.spec import StoredDtype
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.teachers.base import TeacherFeatures

REFERENCE, RAW = "savez_compressed float32", "numpy.memmap, raw bytes"
VARIANTS: tuple[tuple[bool, StoredDtype], ...] = ((False, "bfloat16"), (True, "bfloat16"), (False, "int8"), (True, "int8"))
"""(student's grid, number format) of the stores that are measured; the first one also against raw bytes."""


def measure(folder: Path, shape: Shape, scenes: int, repeats: int, say: Callable[[str], None]) -> list[Row]:
    """All rows about bytes and times of the store. ``scenes`` are written per store, medians are taken over them."""
    tokens = reference_tokens(shape)
    features = features_of(shape, tokens)
    say("reference recipe: np.savez_compressed and np.load of one scene")
    reference = _reference(folder / "reference.npz", tokens)
    del tokens
    rows = []
    for pooled, dtype in VARIANTS:
        name = f"{shape.student} x {shape.student} grid, {dtype}" if pooled else f"native grid, {dtype}"
        say(f"our store, {name}: {scenes} scenes")
        place = folder / f"{dtype}_{pooled}"
        store = _store(place, shape, shape.spec(pooled=pooled, dtype=dtype), features, scenes, repeats)
        rows += _against_reference(name, shape, store, reference, pooled=pooled)
        if (pooled, dtype) == VARIANTS[0]:
            say("raw numpy.memmap of the same bytes")
            raw = _raw(folder / "raw.bin", to_bfloat16_bits(features.tokens), scenes, repeats)
            rows += _against_raw(name, store, raw)
        shutil.rmtree(place)
    return rows


def _reference(path: Path, tokens: NDArray[np.float32]) -> dict[str, float]:
    found = {"write": times(lambda: np.savez_compressed(path, tokens[None]), 1)[0], "bytes": float(path.stat().st_size)}

    def load() -> NDArray[np.float32]:
        with np.load(path) as content:
            return content["arr_0"]

    found["read"] = median_s(load, 2)
    found["view"] = median_s(lambda: load()[0, 1 % tokens.shape[0], SPECIAL:].copy(), 1)
    path.unlink()
    return found


def _store(
    folder: Path, shape: Shape, spec: StoreSpec, features: TeacherFeatures, scenes: int, repeats: int
) -> dict[str, float]:
    """Medians: write; read float32 and as stored, first (verified) and again, warm and cold; one view; bytes per scene."""
    names = [f"scene{number:04d}" for number in range(scenes)]
    with FeatureWriter(folder, spec) as writer:
        upcoming = iter(names)
        found = {"write": float(np.median(times(lambda: writer.write(next(upcoming), shape.frames, features), scenes)))}
        found["bytes"] = writer.finish()["counts"]["bytes"] / scenes
    manifest = folder / "manifest.json"
    files = [path for path in folder.glob("features.zarr/**/*") if path.is_file()]

    def decoded(reader: FeatureReader) -> object:
        return reader.read(names[0], shape.frames).tokens

    def copied(reader: FeatureReader) -> object:
        return np.array(reader.read_stored(names[0], shape.frames).tokens)

    for kind, read in (("read", decoded), ("stored", copied)):
        found[f"{kind} first"] = _fresh(manifest, read, repeats)
        found[f"{kind} cold"] = _fresh(manifest, read, repeats, before=lambda: drop_cache(files))
        reader = FeatureReader([manifest])
        read(reader)
        found[f"{kind} again"] = median_s(partial(read, reader), repeats)
        del reader
    reader, views = FeatureReader([manifest]), iter(range(shape.views))
    found["view"] = float(np.median(times(lambda: reader.read_view(names[-1], next(views)), shape.views)))
    return found


def _fresh(
    manifest: Path, read: Callable[[FeatureReader], object], repeats: int, before: Callable[[], object] = lambda: None
) -> float:
    """Median time of a first read, by a new reader each time (opening the manifest is not counted)."""
    found = []
    for _ in range(repeats):
        reader = FeatureReader([manifest])
        before()
        found += times(partial(read, reader), 1)
    return float(np.median(found))


def _raw(path: Path, bits: NDArray[np.uint16], scenes: int, repeats: int) -> dict[str, float]:
    """The limit: the same bytes through numpy.memmap, one file per scene, flushed and fsynced like ours."""
    paths = [path.with_suffix(f".{number}") for number in range(scenes)]
    upcoming = iter(paths)

    def write() -> None:
        target = next(upcoming)
        mapped = np.memmap(target, dtype=bits.dtype, mode="w+", shape=bits.shape)
        mapped[...] = bits
        mapped.flush()
        del mapped
        for place in (target, target.parent):
            descriptor = os.open(place, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def read() -> object:
        return np.array(np.memmap(paths[0], dtype=bits.dtype, mode="r", shape=bits.shape))

    def decoded() -> object:
        stored = np.memmap(paths[0], dtype=bits.dtype, mode="r", shape=bits.shape)
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)

    found = {"write": float(np.median(times(write, scenes))), "read": median_s(read, repeats)}
    found["decoded"] = median_s(decoded, repeats)
    cold = []
    for _ in range(repeats):
        drop_cache(paths)
        cold += times(read, 1)
    found["cold"] = float(np.median(cold))
    for target in paths:
        target.unlink()
    return found


def _against_reference(
    name: str, shape: Shape, store: dict[str, float], reference: dict[str, float], *, pooled: bool
) -> list[Row]:
    what = f"{name}: "
    share = 1 / 10 if pooled else 1 / 2
    plain = 4.0 * shape.views * (SPECIAL + shape.rows * shape.cols) * shape.dim
    grid = "averaged into the grid and " if pooled else ""
    return [
        Row(what + "bytes of a scene", store["bytes"], reference["bytes"], REFERENCE, "bytes", "smaller", share),
        Row(what + "bytes of a scene", store["bytes"], plain, "float32, uncompressed", "bytes", "smaller", note="computed"),
        Row(what + "write a scene", store["write"], reference["write"], REFERENCE, "s", "faster", 25, f"{grid}on disk"),
        Row(what + "read a scene", store["read first"], reference["read"], REFERENCE, "s", "faster", 15, "float32, verified"),
        Row(what + "read it again", store["read again"], reference["read"], REFERENCE, "s", "faster", note="float32"),
        Row(what + "read one view", store["view"], reference["view"], REFERENCE, "s", "faster", 100, "float32, verified"),
    ]


def _against_raw(name: str, store: dict[str, float], raw: dict[str, float]) -> list[Row]:
    what = f"{name}: "
    return [
        Row(what + "write a scene", store["write"], raw["write"], RAW, "s", "faster", 0.5, "ours from float32, both flushed"),
        Row(what + "read, bytes as stored", store["stored first"], raw["read"], RAW, "s", "faster", 0.6, "warm, ours verified"),
        Row(what + "read, bytes as stored", store["stored cold"], raw["cold"], RAW, "s", "faster", 0.6, "page cache dropped"),
        Row(what + "read, bytes again", store["stored again"], raw["read"], RAW, "s", "faster", 0.6, "warm"),
        Row(what + "read to float32", store["read first"], raw["decoded"], RAW + ", converted", "s", "faster", note="warm"),
    ]
