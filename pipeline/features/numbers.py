"""Stored number formats. zarr has no bfloat16, so a bf16 store holds its bit patterns as uint16 and says so in its spec."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 -> bfloat16 bit patterns, rounded to nearest, ties to even; NaN stays NaN, too large values become infinite."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    quiet_nan = (bits >> np.uint32(16)) | np.uint32(0x0040)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)


def from_bfloat16_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bit patterns -> float32, exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def encode(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """float32 values as they are stored in a store of this ``dtype`` ("bfloat16" or "float32")."""
    return to_bfloat16_bits(values) if dtype == "bfloat16" else np.ascontiguousarray(values, dtype="<f4")


def decode(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Inverse of ``encode``, always float32."""
    return from_bfloat16_bits(stored) if dtype == "bfloat16" else np.asarray(stored, dtype=np.float32)


def stored_type(dtype: str) -> str:
    """The array type on disk."""
    return {"bfloat16": "uint16", "float32": "float32"}[dtype]
