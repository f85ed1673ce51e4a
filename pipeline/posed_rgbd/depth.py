"""Stored depth values to millimetres: exact, by a table of all 65,536 values."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.conventions import DEPTH_UNIT_PER_M
from pipeline.errors import FrameError

Code = Literal["plain", "rotated"]
_VALUES = 1 << 16
_NO_IMAGE = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError)
"""What Pillow raises for damaged files; the second when a damaged header asks for gigabytes."""


@dataclass(frozen=True)
class DepthCode:
    """How a scan stores depth.

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
        image = open_image(path)
        if image.ndim != 2 or image.shape != size or image.dtype == np.uint8 or image.dtype.kind not in "ui":
            raise FrameError(
                f"depth image {path} has shape {image.shape} and type {image.dtype}",
                allowed=f"{size}, one channel of 16 bits, as in the scene's first depth image",
            )
        if image.size and not 0 <= int(image.min()) <= int(image.max()) < _VALUES:
            raise FrameError(f"depth image {path} holds values up to {image.max()}", allowed="0 to 65535")
        return self.table[image]


def open_image(path: Path) -> NDArray[np.generic]:
    """Pixels of an image file. FrameError when it is missing or damaged."""
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError:
        raise FrameError(f"image {path} is missing") from None
    except _NO_IMAGE as error:
        raise FrameError(f"image {path} cannot be read ({error})", mend="get the file again") from None


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) from the header alone. FrameError when the file is missing or no image."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise FrameError(f"image {path} is missing") from None
    except _NO_IMAGE as error:
        raise FrameError(f"image {path} cannot be read ({error})", mend="get the file again") from None
