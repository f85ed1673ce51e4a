"""Conversion of images to Pi3 input: one size for all views, the largest below the pixel limit that keeps the aspect ratio.

For the released limit (255,000 pixels, patch 14) a ScanNet frame 968x1296 becomes 434x574, a grid of 31x41 over all of the
image. Nothing is cropped; smaller images are enlarged. Source: the loader of yyfz/Pi3 (``PIXEL_LIMIT``), restated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import FrameError
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers._common.resize import resize_views
from pipeline.teachers.pi3.config import Pi3Config
from pipeline.teachers.vggt.images import pixels_to_input

if TYPE_CHECKING:
    from torch import Tensor


def token_grid(height_px: int, width_px: int, config: Pi3Config) -> TokenGrid:
    """Return the token grid of images of this size. Raise FrameError for images too thin for one row or column of patches."""
    scale = math.sqrt(config.pixel_limit / (width_px * height_px))
    wide, high = width_px * scale, height_px * scale
    cols, rows = round(wide / config.patch), round(high / config.patch)
    while cols * rows * config.patch**2 > config.pixel_limit:
        if cols / rows > wide / high:
            cols -= 1
        else:
            rows -= 1
    if min(cols, rows) < 1:
        raise FrameError(
            f"images of {height_px} x {width_px} pixels are too thin",
            allowed=f"a longer side of at most {config.pixel_limit / config.patch**2:.0f} times the shorter one",
        )
    return TokenGrid(rows, cols)


def to_pixels(rgb: NDArray[np.uint8], config: Pi3Config) -> NDArray[np.uint8]:
    """Resize views uint8 (V,H,W,3) to (V,H',W',3), H' and W' multiples of the patch (Lanczos, on 8-bit values)."""
    grid = token_grid(rgb.shape[1], rgb.shape[2], config)
    return resize_views(rgb, (grid.rows * config.patch, grid.cols * config.patch), "lanczos")


def to_input(rgb: NDArray[np.uint8], config: Pi3Config) -> Tensor:
    """Turn views uint8 (V,H,W,3) into network input float32 (V,3,H',W') in [0,1]."""
    return pixels_to_input(torch.from_numpy(to_pixels(rgb, config)))
