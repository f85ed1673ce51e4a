"""What the stored formats do to features, against the stated errors."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import StoreError
from pipeline.features import dtypes
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures

GRID = TokenGrid(12, 16)


def bell(width: int = 256) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(2, 12, 16, width)).astype(np.float32)


def flat_channels() -> NDArray[np.float32]:
    """Half of the channels are constant (large, small, zero), as in real teachers."""
    tokens = bell()
    tokens[..., :64], tokens[..., 64:96], tokens[..., 96:128] = 7.5, -1e-3, 0.0
    return tokens


def outlier_channels() -> NDArray[np.float32]:
    """Two channels a hundred times larger than the others: the massive activations of vision transformers."""
    tokens = bell()
    tokens[..., [3, 200]] *= 100
    return tokens


def spiked_cells() -> NDArray[np.float32]:
    """One cell per view is fifty times larger in a tenth of its channels."""
    tokens = bell()
    tokens[:, 4, 5, ::10] *= 50
    return tokens


def relative_bound(tokens: NDArray[np.float32]) -> NDArray[np.float64]:
    """The bound of dtypes.py: per token r^2, r^2 = sum over channels of (largest / 254)^2 / squared norm."""
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    return ((np.abs(flat).max(0) / 254) ** 2).sum() / (flat**2).sum(1)


@pytest.mark.parametrize(
    ("make", "stated"), [(bell, 2e-4), (flat_channels, 2e-4), (outlier_channels, 2e-3), (spiked_cells, dtypes.INT8_LIMIT)]
)
def test_int8_keeps_the_stated_cosine(make, stated: float) -> None:
    for view in make():
        stored, scales = dtypes.quantise(view)
        back = dtypes.decode(stored, "int8", scales)
        assert (stored.dtype, scales.shape) == (np.int8, (256,))
        assert (np.abs(view - back) <= scales / 2 * (1 + 1e-5) + 1e-12).all()
        error = dtypes.cosine_error(view, back)
        assert error.max() <= stated
        assert (error <= relative_bound(view) + 1e-9).all()


def test_constant_and_zero_channels_are_exact() -> None:
    view = flat_channels()[0]
    back = dtypes.decode(*_swap(dtypes.quantise(view)))
    np.testing.assert_allclose(back[..., :96], view[..., :96], rtol=1e-6)
    np.testing.assert_array_equal(back[..., 96:128], 0.0)


def _swap(quantised: tuple[NDArray[np.int8], NDArray[np.float32]]) -> tuple[NDArray[np.int8], str, NDArray[np.float32]]:
    return quantised[0], "int8", quantised[1]


def test_bfloat16_keeps_the_stated_cosine() -> None:
    for tokens in (bell(), flat_channels(), outlier_channels(), spiked_cells()):
        back = dtypes.decode(dtypes.encode(tokens, "bfloat16"), "bfloat16")
        assert dtypes.cosine_error(tokens, back).max() <= dtypes.STATED_ERROR["bfloat16"]
    # The worst case of the bound: numbers half a step above a power of two, half of them rounded up and half down.
    worst = np.tile(np.float32([1 + 2**-8 - 2**-16, 1 + 2**-8 + 2**-16]), 128)
    error = dtypes.cosine_error(worst, dtypes.decode(dtypes.encode(worst, "bfloat16"), "bfloat16"))[0]
    assert 0.9 * dtypes.STATED_ERROR["bfloat16"] < error <= dtypes.STATED_ERROR["bfloat16"]


def test_cosine_error_is_one_minus_the_cosine() -> None:
    a, b = np.float32([[1, 0], [1, 1], [0, 0], [1, 0]]), np.float32([[1, 0], [-1, 1], [0, 0], [0, 0]])
    np.testing.assert_allclose(dtypes.cosine_error(a, b), [0, 1, 0, 1], atol=1e-12)
    tiny = np.float32([[1.0, 1e-4]])
    np.testing.assert_allclose(dtypes.cosine_error(np.float32([[1.0, 0.0]]), tiny), [5e-9], rtol=1e-3)


def test_numpy_rounding_to_nearest_even_is_what_the_store_does() -> None:
    values = bell().reshape(-1)
    bits = values.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    np.testing.assert_array_equal(dtypes.to_bfloat16_bits(values), expected)


def int8_spec(width: int = 256) -> StoreSpec:
    return StoreSpec("rooms", "oracle", "geometry", width, 12, 16, dtype="int8")


def test_the_measured_error_stands_in_the_manifest(tmp_path: Path) -> None:
    tokens = outlier_channels()
    with FeatureWriter(tmp_path, int8_spec()) as writer:
        writer.write("a", ("f0", "f1"), TeacherFeatures(tokens, GRID))
        writer.finish()
    reader = FeatureReader([tmp_path / "manifest.json"])
    found = reader.read("a", ("f0", "f1")).tokens
    measured = max(dtypes.cosine_error(a, b).max() for a, b in zip(tokens, found, strict=True))
    assert reader.cosine_error("a") == pytest.approx(measured, rel=1e-6)
    assert reader.stored_bytes("a") < 0.30 * tokens.nbytes
    with pytest.raises(StoreError, match="'float64'"):
        dataclasses.replace(int8_spec(), dtype="float64")


@pytest.mark.parametrize("fault", ["spikes", "nan"])
def test_int8_refuses_what_it_would_spoil(tmp_path: Path, fault: str) -> None:
    tokens = bell()
    tokens[1, 2, 3, ::2] = np.nan if fault == "nan" else 2000.0
    message = "not finite" if fault == "nan" else "int8 turns a token by"
    with FeatureWriter(tmp_path, int8_spec()) as writer, pytest.raises(StoreError, match=message) as caught:
        writer.write("a", ("f0", "f1"), TeacherFeatures(tokens, GRID))
    assert "frame 'f1'" in str(caught.value)
    assert not list(tmp_path.glob("features.zarr/*/a"))


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_errors_of_tokens_whose_squares_float32_cannot_hold(tmp_path: Path, scale: float) -> None:
    """Lengths that overflow or vanish would pass as no error at all."""
    view = bell()[0]
    back = dtypes.decode(*_swap(dtypes.quantise(view)))
    expected = dtypes.cosine_error(view, back)
    np.testing.assert_allclose(dtypes.cosine_error(view * np.float32(scale), back * np.float32(scale)), expected, rtol=1e-3)
    with FeatureWriter(tmp_path, int8_spec()) as writer:
        writer.write("a", ("f0", "f1"), TeacherFeatures(bell() * np.float32(scale), GRID))
        writer.finish()
    assert 1e-6 < FeatureReader([tmp_path / "manifest.json"]).cosine_error("a") < 2e-4


def test_int8_refuses_numbers_that_become_infinite(tmp_path: Path) -> None:
    tokens = np.full((1, 12, 16, 256), np.finfo(np.float32).max)
    with FeatureWriter(tmp_path, int8_spec()) as writer, pytest.raises(StoreError, match="int8 turns a token"):
        writer.write("a", ("f0",), TeacherFeatures(tokens, GRID))


def test_arrays_that_may_not_be_written_are_stored_without_a_warning(tmp_path: Path) -> None:
    tokens = bell()
    tokens.flags.writeable = False
    with warnings.catch_warnings(), FeatureWriter(tmp_path, dataclasses.replace(int8_spec(), dtype="bfloat16")) as writer:
        warnings.simplefilter("error")
        writer.write("a", ("f0", "f1"), TeacherFeatures(tokens, GRID))
