"""The aggregator of VGGT: alternating attention within each view and over all views of a scene.

The first view has camera and register tokens of its own, so the output depends on which view comes first; otherwise nothing
tells views apart but what they show.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.encoder import PatchEncoder
from pipeline.teachers.vggt.layers import Block, RotaryTable

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Aggregator(nn.Module):
    """Images (B,V,3,H,W) in [0,1] -> {layer: (B,V,lead+gh*gw,2C)}: frame and global features side by side."""

    def __init__(self, config: VGGTConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = PatchEncoder(config)
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.registers, width))
        self.frame_blocks = nn.ModuleList(self._block() for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(self._block() for _ in range(config.depth))
        self.rotary = RotaryTable(width // config.heads, config.rope_base)
        self.mean: Tensor
        self.std: Tensor
        # Not in any checkpoint, so they must hold numbers even when the network is built on the meta device.
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(1, 3, 1, 1), persistent=False)

    def _block(self) -> Block:
        config = self.config
        return Block(config.width, config.heads, eps=1e-5, qk_norm=True, layer_scale=config.layer_scale)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Return encoder tokens (B*V, gh*gw, C) of images (B,V,3,H,W)."""
        return self.patch_embed((images.flatten(0, 1) - self.mean) / self.std)

    def _special_tokens(self, scenes: int, views: int) -> Tensor:
        """Return camera and register tokens (B*V, lead, C): variant 0 for the first view, 1 for all others."""
        variants = torch.cat([self.camera_token, self.register_token], dim=2)
        first, others = variants[:, :1], variants[:, 1:].expand(-1, views - 1, -1, -1)
        return torch.cat([first, others], dim=1).expand(scenes, -1, -1, -1).flatten(0, 1)

    def aggregate(self, patches: Tensor, views: int, grid: tuple[int, int], keep: Sequence[int]) -> dict[int, Tensor]:
        """Turn encoder tokens (B*V, gh*gw, C) into the kept layers. Layers after the last kept one are not computed."""
        scenes, (rows, cols), lead = len(patches) // views, grid, self.config.lead
        wanted = {layer % self.config.depth for layer in keep}
        x = torch.cat([self._special_tokens(scenes, views).to(patches.dtype), patches], dim=1)
        within = self.rotary(lead, rows, cols, 1, x.device)
        across = self.rotary(lead, rows, cols, views, x.device)
        kept: dict[int, Tensor] = {}
        for layer in range(max(wanted) + 1):
            x = frame = self.frame_blocks[layer](x, within)
            x = self.global_blocks[layer](x.unflatten(0, (scenes, views)).flatten(1, 2), across)
            x = x.unflatten(1, (views, -1)).flatten(0, 1)
            if layer in wanted:
                kept[layer] = torch.cat([frame, x], dim=-1).unflatten(0, (scenes, views))
        return kept

    def forward(self, images: Tensor, keep: Sequence[int] = (-1,)) -> dict[int, Tensor]:
        """Return kept layers by non-negative index. ``keep`` may count from the end (-1 is the last)."""
        grid = (images.shape[-2] // self.config.patch, images.shape[-1] // self.config.patch)
        return self.aggregate(self.patch_tokens(images), images.shape[1], grid, keep)
