"""Resizing of views for an image network: one rule gives the input size and the token grid.

Images are never cropped: the grid covers the whole image and only the aspect ratio may change. Free of torch, so that a
teacher can report its grid without loading a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import FrameError
from pipeline.scenes.grid import TokenGrid

Sizing = Literal["width", "long_side", "area", "squash"]
Rounding = Literal["nearest", "down"]
Filter = Literal["bicubic", "bilinear", "lanczos"]
Channels = tuple[float, float, float]

FILTERS: dict[Filter, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation per colour channel, of values in [0,1]. ``half`` maps them to [-1,1]."""


@dataclass(frozen=True, slots=True)
class InputRule:
    """A rule for resizing. ``size``: pixels of the width, the longer side or both sides (squash), or of the area (``area``).

    Sides become multiples of ``multiple`` pixels; a token is a square of ``patch`` pixels, and ``patch`` divides ``multiple``.
    """

    sizing: Sizing
    size: int
    patch: int
    multiple: int
    rounding: Rounding = "nearest"

    def input_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return the input (height, width) in pixels for an image of this size. Raise FrameError when a side would vanish."""
        height, width = self._wanted(height_px, width_px)
        to_steps = round if self.rounding == "nearest" else int
        # 1e-9: a side that is a multiple up to floating-point error must not lose a whole step when rounding down.
        rows, cols = to_steps(height / self.multiple + 1e-9), to_steps(width / self.multiple + 1e-9)
        if rows < 1 or cols < 1:
            raise FrameError(
                f"images of {height_px} x {width_px} pixels leave no room for a patch of {self.patch} pixels",
                where=f"resize rule {self.sizing} {self.size}, multiples of {self.multiple}",
                allowed="images less narrow, or a larger size",
            )
        return rows * self.multiple, cols * self.multiple

    def _wanted(self, height_px: int, width_px: int) -> tuple[float, float]:
        """Return the height and width before rounding."""
        scale = {
            "width": self.size / width_px,
            "long_side": self.size / max(height_px, width_px),
            "area": (self.size / (height_px * width_px)) ** 0.5,
        }.get(self.sizing)
        return (self.size, self.size) if scale is None else (height_px * scale, width_px * scale)

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        """Return the token grid of an image of this size; it covers the whole image."""
        height, width = self.input_size(height_px, width_px)
        return TokenGrid(height // self.patch, width // self.patch)


def resize_views(rgb: NDArray[np.uint8], size: tuple[int, int], resampling: Filter) -> NDArray[np.uint8]:
    """Resize views uint8 (V,H,W,3) to (V,h,w,3) on 8-bit values; Pillow's filters average over the pixels that are lost."""
    if rgb.shape[1:3] == size:
        return np.array(rgb, order="C")
    target = (size[1], size[0])
    return np.stack([np.asarray(Image.fromarray(view).resize(target, FILTERS[resampling])) for view in rgb])
