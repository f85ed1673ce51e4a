"""Conversion of images to FLARE input: scaled until they cover 384 x 512, then centre-cropped to that size.

A ScanNet frame 968x1296 becomes 384x514, of which 512 columns stay. Portrait images lose most of their rows, as upstream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.flare.config import FLAREConfig

MARGIN = 1e-8
"""Added to the scale, so that rounding never leaves an image one pixel short of the target."""


@dataclass(frozen=True, slots=True)
class ImageRule:
    """Resize by ``scale`` to (``height``, ``width``), then keep ``kept_height`` x ``kept_width`` from (``top``, ``left``)."""

    scale: float
    height: int
    width: int
    top: int
    left: int
    kept_height: int
    kept_width: int
    patch: int

    @property
    def grid(self) -> TokenGrid:
        """Return the token grid, in coordinates of the original image."""
        top, bottom = self.top / self.height, (self.top + self.kept_height) / self.height
        left, right = self.left / self.width, (self.left + self.kept_width) / self.width
        return TokenGrid(self.kept_height // self.patch, self.kept_width // self.patch, (left, top, right, bottom))


def image_rule(height_px: int, width_px: int, config: FLAREConfig) -> ImageRule:
    """Return the rule for images of this size."""
    scale = max(config.image_width / width_px, config.image_height / height_px) + MARGIN
    height, width = math.floor(height_px * scale), math.floor(width_px * scale)
    return ImageRule(
        scale=scale,
        height=height,
        width=width,
        top=_offset(height_px, scale, height, config.image_height),
        left=_offset(width_px, scale, width, config.image_width),
        kept_height=config.image_height,
        kept_width=config.image_width,
        patch=config.patch,
    )


def _offset(original: int, scale: float, resized: int, kept: int) -> int:
    """Return the first kept pixel on one axis, by which the principal point moves.

    It is half of what is cut off, but halves of odd numbers round as the float64 errors of exactly this computation fall.
    """
    resized_centre = (original / 2 + 0.5) * scale - 0.5 * (original * scale - resized) - 0.5
    kept_centre = (resized_centre + 0.5) - 0.5 * (resized - kept) - 0.5
    return round(resized_centre - kept_centre)


def to_pixels(rgb: NDArray[np.uint8], config: FLAREConfig) -> Tensor:
    """Resize views uint8 (V,H,W,3) to (V,H',W',3) by the image rule (Lanczos down, bicubic up, on 8-bit values)."""
    rule = image_rule(rgb.shape[1], rgb.shape[2], config)
    method = Image.Resampling.LANCZOS if rule.scale < 1 else Image.Resampling.BICUBIC
    size = (rule.width, rule.height)
    resized = np.stack([np.asarray(Image.fromarray(view).resize(size, method)) for view in rgb])
    kept = resized[:, rule.top : rule.top + rule.kept_height, rule.left : rule.left + rule.kept_width]
    return torch.from_numpy(np.array(kept, order="C"))


def pixels_to_input(pixels: Tensor) -> Tensor:
    """Turn uint8 (V,H,W,3) into float32 (V,3,H,W) in [0,1], on the pixels' device."""
    return pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)


def to_input(rgb: NDArray[np.uint8], config: FLAREConfig) -> Tensor:
    """Turn views uint8 (V,H,W,3) into network input float32 (V,3,H',W') in [0,1]."""
    return pixels_to_input(to_pixels(rgb, config))
