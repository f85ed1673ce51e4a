"""Any shape, any layers, any finite numbers: every way of reading gives the same, and it is what the format promises."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.core.errors import StoreError
from pipeline.features import dtypes
from pipeline.features.arrays import SceneArrays
from pipeline.features.spec import array_types
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures

SPECIAL = (0.0, -0.0, 1e-42, -1e-39, 1e-30, 3.0e38, -3.0e38, 1.0, -1.0, 2.0**-126)


@pytest.fixture(autouse=True)
def fake_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake that does nothing: fsync would be most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[NDArray[np.float32], tuple[tuple[str, int], ...]]:
    """Tokens (V,G,K,D) with constant and zero channels and numbers at the ends of float32; names and widths of layers."""
    views, rows, cols = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens = random.standard_normal((views, rows, cols, sum(widths)), dtype=np.float32)
    tokens *= np.float32(10) ** random.integers(-3, 4, sum(widths)).astype(np.float32)
    kinds = random.integers(0, 4, sum(widths))
    tokens[..., kinds == 0] = random.choice(SPECIAL)
    if draw(st.booleans()):
        tokens = np.where(random.random(tokens.shape) < 0.2, random.choice(SPECIAL, tokens.shape), tokens).astype(np.float32)
    names = () if draw(st.booleans()) and len(widths) == 1 else tuple((f"p{n}", width) for n, width in enumerate(widths))
    return tokens, names


@settings(deadline=None, max_examples=60)
@given(scenes(), st.sampled_from(["bfloat16", "float32"]), st.sampled_from(["none", "lossless"]), st.sampled_from([1, 3]))
def test_what_is_written_comes_back(scene, dtype, compression, threads) -> None:
    tokens, layers = scene
    views, rows, cols, dim = tokens.shape
    spec = StoreSpec("d", "t", "t", dim, rows, cols, dtype=dtype, compression=compression, layers=layers)
    frames = [f"f{view}" for view in range(views)]
    expected = dtypes.decode(dtypes.encode(tokens, dtype), dtype)
    with tempfile.TemporaryDirectory() as folder:
        with FeatureWriter(Path(folder), spec, threads=threads) as writer:
            writer.write("a", frames, TeacherFeatures(tokens, TokenGrid(rows, cols)))
            writer.finish()
        reader = FeatureReader([Path(folder) / "manifest.json"], threads=threads)
        same(reader.read("a", frames).tokens, expected)
        same(reader.read_tensor("a", frames).float().numpy(), expected)
        same(np.concatenate([reader.read_view("a", view).tokens for view in range(views)]), expected)
        same(read_by_zarr(Path(folder), spec, dtype), expected)
        for name in reader.layers:
            one = FeatureReader([Path(folder) / "manifest.json"], layer=name, threads=threads)
            same(one.read("a", frames).tokens, expected[..., spec.columns(name)])


def same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Bit for bit: zeros have signs."""
    np.testing.assert_array_equal(np.ascontiguousarray(found).view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))


def read_by_zarr(folder: Path, spec: StoreSpec, dtype: str) -> NDArray[np.float32]:
    arrays = SceneArrays(folder / "features.zarr")
    stored = [arrays.read_with_zarr(name, "a") for name in array_types(spec, ())]
    return dtypes.decode(np.concatenate(stored, axis=-1), dtype)


@settings(deadline=None, max_examples=40)
@given(scenes(), st.sampled_from(["none", "lossless"]))
def test_int8_is_within_its_measured_error(scene, compression) -> None:
    tokens, layers = scene
    tokens = np.where((np.abs(tokens) < 1e-20) | (np.abs(tokens) > 1e20), 0, tokens).astype(np.float32)
    views, rows, cols, dim = tokens.shape
    spec = StoreSpec("d", "t", "t", dim, rows, cols, dtype="int8", compression=compression, layers=layers)
    frames = [f"f{view}" for view in range(views)]
    with tempfile.TemporaryDirectory() as folder:
        with FeatureWriter(Path(folder), spec) as writer:
            try:
                writer.write("a", frames, TeacherFeatures(tokens, TokenGrid(rows, cols)))
            except StoreError as error:
                if "int8 turns a token" not in error.what:
                    raise
                return
            writer.finish()
        reader = FeatureReader([Path(folder) / "manifest.json"])
        found = reader.read("a", frames).tokens
        assert dtypes.cosine_error(tokens, found).max() <= reader.cosine_error("a") * (1 + 1e-6) <= dtypes.INT8_LIMIT
        largest = np.abs(tokens).max((1, 2), keepdims=True)
        assert (np.abs(tokens - found) <= largest / 254 * (1 + 1e-4)).all()
        assert (found[np.broadcast_to(largest == 0, found.shape)] == 0).all()
        half = reader.read_tensor("a", frames).float().numpy()
        np.testing.assert_allclose(half, found, rtol=2**-8, atol=1e-38)
