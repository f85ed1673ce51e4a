"""How images become VGGT input: width fixed, height to a multiple of the patch, centre rows kept when that is too tall.

For the released size (518 pixels, patch 14) a ScanNet frame 968x1296 becomes 392x518, a grid of 28x37 over the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import FrameError
from pipeline.grid import TokenGrid
from pipeline.nets.vggt.config import VGGTConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ImageRule:
    """Resize to (``height``, ``width``), then keep ``kept`` rows from row ``top`` on."""

    height: int
    width: int
    top: int
    kept: int
    patch: int

    @property
    def grid(self) -> TokenGrid:
        """The token grid, in coordinates of the original image."""
        window = (0.0, self.top / self.height, 1.0, (self.top + self.kept) / self.height)
        return TokenGrid(self.kept // self.patch, self.width // self.patch, window)


def image_rule(height_px: int, width_px: int, config: VGGTConfig) -> ImageRule:
    """The rule for images of this size. FrameError for images so flat that no patch row is left."""
    side = config.image_px
    height = round(height_px * (side / width_px) / config.patch) * config.patch
    if height == 0:
        raise FrameError(
            f"images of {height_px} x {width_px} pixels are too flat",
            allowed=f"a height of more than {config.patch / 2 / side:.1%} of the width",
        )
    top = max(0, (height - side) // 2)
    return ImageRule(height, side, top, min(height, side), config.patch)


def to_pixels(rgb: NDArray[np.uint8], config: VGGTConfig) -> Tensor:
    """Views uint8 (V,H,W,3) -> uint8 (V,H',W',3) by the image rule (bicubic, on 8-bit values). Runs on the CPU."""
    import torch  # here, so that asking for a grid imports no torch

    rule = image_rule(rgb.shape[1], rgb.shape[2], config)
    if (rule.height, rule.width) != rgb.shape[1:3]:
        size = (rule.width, rule.height)
        rgb = np.stack([np.asarray(Image.fromarray(view).resize(size, Image.Resampling.BICUBIC)) for view in rgb])
    return torch.from_numpy(np.array(rgb[:, rule.top : rule.top + rule.kept], order="C"))


def pixels_to_input(pixels: Tensor) -> Tensor:
    """Pixels uint8 (V,H,W,3) on any device -> float32 (V,3,H,W) in [0,1] there."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def to_input(rgb: NDArray[np.uint8], config: VGGTConfig) -> Tensor:
    """Views uint8 (V,H,W,3) -> float32 (V,3,H',W') in [0,1] by the image rule."""
    return pixels_to_input(to_pixels(rgb, config))
