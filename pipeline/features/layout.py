"""Which arrays a store has, with their shapes, types and compression on disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.features import numbers
from pipeline.features.packing import Compression
from pipeline.features.spec import StoreSpec

SCALES = "scales"
EXTRAS = ("confidence", "depth", "pose")
"""Arrays that a teacher may or may not have; the names of fields of TeacherFeatures."""


class ArrayType(NamedTuple):
    """How an array is stored: shape of one view, type on disk, compression of each view."""

    shape: tuple[int, ...]
    dtype: str
    compression: Compression = "none"


def token_array(spec: StoreSpec, part: str) -> str:
    """Name of the array that holds a part: reading one part touches no byte of the others."""
    return "tokens" if spec.parts == (("tokens", spec.dim),) else f"tokens.{part}"


def array_types(spec: StoreSpec, names: Iterable[str]) -> dict[str, ArrayType]:
    """Tokens, scales and, of the ``names`` given, extras of a store. Only tokens are compressed: the rest is small."""
    dtype, maps = numbers.stored_type(spec.dtype), (spec.rows, spec.cols)
    found = {token_array(spec, part): ArrayType((*maps, width), dtype, spec.compression) for part, width in spec.parts}
    if spec.dtype == "int8":
        found[SCALES] = ArrayType((spec.dim,), "float32")
    shapes: dict[str, tuple[int, ...]] = {"confidence": maps, "depth": maps, "pose": (4, 4)}
    return found | {name: ArrayType(shapes[name], "float32") for name in EXTRAS if name in set(names)}
