"""Stored depth values to millimetres: exact, by a table of all 65,536 values."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.scenes.conventions import DEPTH_UNIT_PER_M
from pipeline.scenes.source_images import depth_values

Code = Literal["plain", "rotated"]
_VALUES = 1 << 16


@dataclass(frozen=True)
class DepthCode:
    """The encoding of a scan's depth.

    ``unit_per_m``: stored units per metre. ``invalid``: values besides 0 that mean no measurement. ``code``: ``plain`` numbers,
    or ``rotated`` to the left by three bits (SUN RGB-D and SUN3D). ``max_m``: depth beyond this many metres is dropped.
    """

    unit_per_m: float
    invalid: tuple[int, ...] = ()
    code: Code = "plain"
    max_m: float | None = None

    @cached_property
    def table(self) -> NDArray[np.uint16]:
        """Millimetres (65536,) of every stored value, rounded half up; 0 where invalid or not below 65.536 m."""
        stored = np.arange(_VALUES, dtype=np.int64)
        value = (stored >> 3 | stored << 13) & (_VALUES - 1) if self.code == "rotated" else stored
        unit = Fraction(str(self.unit_per_m)) / DEPTH_UNIT_PER_M
        mm = (2 * value * unit.denominator + unit.numerator) // (2 * unit.numerator)
        limit = _VALUES - 1 if self.max_m is None else min(_VALUES - 1, int(Fraction(str(self.max_m)) * DEPTH_UNIT_PER_M))
        mm[(mm > limit) | np.isin(stored, self.invalid)] = 0
        return mm.astype(np.uint16)

    def read_mm(self, path: Path, size: tuple[int, int]) -> NDArray[np.uint16]:
        """Depth (H,W) in millimetres, 0 = invalid. FrameError for a file that is missing, damaged or of another kind."""
        return self.table[depth_values(path, str(path), size)]
