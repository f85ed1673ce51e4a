"""Conversion of images to VGGT input, in the two modes of its loader.

crop  width fixed, height to a multiple of the patch, centre rows kept when that is too tall (portraits lose rows)
pad   longer side fixed, the other to a multiple of the patch, white around it up to a square: nothing is lost

For the released size (518 pixels, patch 14) a ScanNet frame 968x1296 becomes 392x518, a grid of 28x37 over the whole image;
padded, it is a grid of 37x37 that reaches beyond the image above and below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import FrameError
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.vggt.config import VGGTConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ImageRule:
    """Resize to (``height``, ``width``), then take ``kept`` rows from ``top`` on and ``kept_width`` columns from ``left`` on.

    Negative ``top`` and ``left`` begin that many white pixels before the image.
    """

    height: int
    width: int
    top: int
    kept: int
    patch: int
    left: int
    kept_width: int

    @property
    def grid(self) -> TokenGrid:
        """Return the token grid, in coordinates of the original image; padding lies outside of 0 to 1."""
        x0, x1 = self.left / self.width, (self.left + self.kept_width) / self.width
        y0, y1 = self.top / self.height, (self.top + self.kept) / self.height
        return TokenGrid(self.kept // self.patch, self.kept_width // self.patch, (x0, y0, x1, y1))


def image_rule(height_px: int, width_px: int, config: VGGTConfig) -> ImageRule:
    """Return the rule for images of this size. Raise FrameError for images so thin that no row or column of patches is left."""
    side = config.image_px
    if config.images == "pad" and height_px > width_px:
        width, height = _other(width_px, height_px, config), side
    else:
        width, height = side, _other(height_px, width_px, config)
    if config.images == "crop":
        return ImageRule(height, width, max(0, (height - side) // 2), min(height, side), config.patch, 0, width)
    # The smaller half of the padding comes first.
    return ImageRule(height, width, -((side - height) // 2), side, config.patch, -((side - width) // 2), side)


def _other(other_px: int, fixed_px: int, config: VGGTConfig) -> int:
    """Return the pixels of the side that follows from the fixed one, a multiple of the patch."""
    found = round(other_px * (config.image_px / fixed_px) / config.patch) * config.patch
    if found == 0:
        raise FrameError(
            f"images with sides of {other_px} and {fixed_px} pixels are too thin",
            allowed=f"a shorter side of more than {config.patch / 2 / config.image_px:.1%} of the other",
        )
    return found


def to_pixels(rgb: NDArray[np.uint8], config: VGGTConfig) -> Tensor:
    """Resize views uint8 (V,H,W,3) to (V,H',W',3) by the image rule (bicubic, on 8-bit values). Runs on the CPU."""
    import torch  # here, so that asking for a grid imports no torch

    rule = image_rule(rgb.shape[1], rgb.shape[2], config)
    if (rule.height, rule.width) != rgb.shape[1:3]:
        size = (rule.width, rule.height)
        rgb = np.stack([np.asarray(Image.fromarray(view).resize(size, Image.Resampling.BICUBIC)) for view in rgb])
    if (rule.kept, rule.kept_width) == (rule.height, rule.width) or rule.top > 0:
        return torch.from_numpy(np.array(rgb[:, rule.top : rule.top + rule.kept], order="C"))
    whole = np.full((len(rgb), rule.kept, rule.kept_width, 3), 255, dtype=np.uint8)
    whole[:, -rule.top : rule.height - rule.top, -rule.left : rule.width - rule.left] = rgb
    return torch.from_numpy(whole)


def pixels_to_input(pixels: Tensor) -> Tensor:
    """Turn pixels uint8 (V,H,W,3) on any device into float32 (V,3,H,W) in [0,1] on the same device."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def to_input(rgb: NDArray[np.uint8], config: VGGTConfig) -> Tensor:
    """Turn views uint8 (V,H,W,3) into float32 (V,3,H',W') in [0,1] by the image rule."""
    return pixels_to_input(to_pixels(rgb, config))
