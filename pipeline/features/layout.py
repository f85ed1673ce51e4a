"""Which arrays a store has, with their shapes and types on disk."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.features import numbers
from pipeline.features.spec import StoreSpec

SCALES = "scales"
EXTRAS = ("confidence", "depth", "pose")
"""Arrays that a teacher may or may not have; the names of fields of TeacherFeatures."""


def token_array(spec: StoreSpec, part: str) -> str:
    """Name of the array that holds a part: reading one part touches no byte of the others."""
    return "tokens" if spec.parts == (("tokens", spec.dim),) else f"tokens.{part}"


def array_types(spec: StoreSpec, names: Iterable[str]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Tokens, scales and, of the ``names`` given, extras of a store: name -> (shape of one view, type on disk)."""
    dtype, maps = numbers.stored_type(spec.dtype), (spec.rows, spec.cols)
    found: dict[str, tuple[tuple[int, ...], str]] = {
        token_array(spec, part): ((*maps, width), dtype) for part, width in spec.parts
    }
    if spec.dtype == "int8":
        found[SCALES] = ((spec.dim,), "float32")
    shapes: dict[str, tuple[int, ...]] = {"confidence": maps, "depth": maps, "pose": (4, 4)}
    return found | {name: (shapes[name], "float32") for name in EXTRAS if name in set(names)}
