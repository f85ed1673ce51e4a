"""Transfer of views to a network and of features back, such that neither side waits for the other.

``prepare`` works on the CPU (resizing, page-locked memory for a GPU), ``to_device`` queues copy and normalisation, and
``begin_copy`` queues the way back; only the function that it returns waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.scenes.grid import TokenGrid
from pipeline.teachers._common.resize import Channels, Filter, InputRule, resize_views


@dataclass(frozen=True, slots=True)
class PreparedViews:
    """Resized views. ``pixels`` uint8 (V,h,w,3) at the network's input size, and the token grid in the original images."""

    pixels: Tensor
    grid: TokenGrid


def prepared(pixels: Tensor, grid: TokenGrid, device: torch.device) -> PreparedViews:
    """Return views ready for ``device``: in page-locked memory for a GPU, so that the copy to it blocks nothing."""
    return PreparedViews(pixels.pin_memory() if device.type == "cuda" else pixels, grid)


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate groups of tokens (..., D_i) on the channel axis.

    Of several, each is scaled to mean square 1 per token, so that none dominates a cosine; a single one stays unscaled.
    """
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part / part.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6) for part in parts], dim=-1)


class ViewInput:
    """One rule for all views: resize by ``rule`` and ``resampling``, then (x / 255 - mean) / std per channel."""

    def __init__(self, rule: InputRule, resampling: Filter, channels: tuple[Channels, Channels], device: str):
        self.rule, self.resampling = rule, resampling
        self.device = torch.device(device)
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in channels)
        self._scale, self._offset = 1 / (255 * std), mean / std

    def prepare(self, rgb: NDArray[np.uint8]) -> PreparedViews:
        """Resize views uint8 (V,H,W,3) of any size. Raise FrameError when they are too narrow for a single patch."""
        height, width = rgb.shape[1:3]
        pixels = torch.from_numpy(resize_views(rgb, self.rule.input_size(height, width), self.resampling))
        return prepared(pixels, self.rule.grid(height, width), self.device)

    def to_device(self, views: PreparedViews) -> Tensor:
        """Return the normalised pixels float32 (V,3,h,w) on the device."""
        pixels = views.pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        return (pixels * self._scale - self._offset).contiguous()


def begin_copy(tensor: Tensor) -> Callable[[], NDArray[np.float32]]:
    """Queue the copy of a float32 tensor to the host; the returned function waits for it. Nothing is copied on a CPU."""
    if not tensor.is_cuda:
        return lambda: np.ascontiguousarray(tensor.numpy())
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def array() -> NDArray[np.float32]:
        done.synchronize()
        return host.numpy()

    return array
