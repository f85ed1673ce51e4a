"""Pixels for vision towers without torchvision or Processor classes: resizing, normalisation, Qwen's patch order.

Images are squashed to the tower's size by Pillow's bicubic filter, as 3DRS does; every family's
own image processor uses the same filter.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIGLIP = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation per channel of Qwen2.5-VL, InternVL and SigLIP towers."""

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


def resize(rgb: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Squash views uint8 (V,H,W,3) to (V,height,width,3)."""
    if rgb.ndim != 4 or rgb.shape[-1] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"views must be uint8 (V,H,W,3), got {rgb.dtype} {rgb.shape}")
    if rgb.shape[1:3] == (height, width):
        return rgb
    resized = [np.asarray(Image.fromarray(view).resize((width, height), Image.Resampling.BICUBIC)) for view in rgb]
    return np.stack(resized) if resized else np.zeros((0, height, width, 3), np.uint8)


def normalise(rgb: NDArray[np.uint8], normalisation: Normalisation) -> torch.Tensor:
    """Turn uint8 (V,H,W,3) into float32 (V,3,H,W), (x / 255 - mean) / std."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalisation)
    pixels = torch.from_numpy(np.array(rgb)).permute(0, 3, 1, 2).float()
    return ((pixels / 255 - mean) / std).contiguous()


def patchify(pixels: torch.Tensor, patch: int, merge: int, temporal: int) -> torch.Tensor:
    """Turn still images (n,3,H,W) into Qwen's patch rows (n * H/p * W/p, 3 * temporal * p * p).

    Rows are ordered (image, row block, column block, row in block, column in block) so that a merge block is contiguous;
    inside a row channels come first, then the duplicated frames, then the patch's pixels.
    """
    n, channels, height, width = pixels.shape
    rows, cols = height // (patch * merge), width // (patch * merge)
    blocks = pixels.reshape(n, channels, rows, merge, patch, cols, merge, patch)
    blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)
    frames = blocks.unsqueeze(6).expand(*blocks.shape[:6], temporal, patch, patch)
    return frames.reshape(n * rows * cols * merge * merge, channels * temporal * patch * patch)
