"""Encoder and decoder of Pi3: what its features are made of. Pi3X without extra inputs computes the same function.

The decoder alternates attention within each view and across all views. No view has tokens of its own, so permuting the
views permutes the output; but every view sees all others, so the output depends on which views there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.teachers.pi3.config import Pi3Config
from pipeline.teachers.vggt.aggregator import IMAGENET_MEAN, IMAGENET_STD
from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.encoder import PatchEncoder
from pipeline.teachers.vggt.layers import Block, RotaryTable


class Encoder(PatchEncoder):
    """VGGT's patch encoder without the mask token, which the checkpoints of Pi3 do not hold."""

    def __init__(self, config: VGGTConfig):
        super().__init__(config)
        del self.mask_token


class Trunk(nn.Module):
    """Images (B,V,3,H,W) in [0,1] -> {layer: (B,V,registers+gh*gw,2C)}.

    Layer i holds the outputs of decoder blocks 2i (within views) and 2i+1 (across views) side by side; the last one is the
    network's own feature_layer.
    """

    def __init__(self, config: Pi3Config):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.register_token = nn.Parameter(torch.zeros(1, 1, config.registers, config.width))
        self.decoder = nn.ModuleList(
            Block(config.width, config.heads, eps=1e-6, qk_norm=True, layer_scale=config.layer_scale)
            for _ in range(config.depth)
        )
        self.rotary = RotaryTable(config.width // config.heads, config.rope_base)
        self.image_mean: Tensor
        self.image_std: Tensor
        self.register_buffer("image_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Return encoder tokens (B*V, gh*gw, C) of images (B,V,3,H,W)."""
        return self.encoder((images.flatten(0, 1) - self.image_mean) / self.image_std)

    def decode(self, patches: Tensor, views: int, grid: tuple[int, int], keep: Sequence[int]) -> dict[int, Tensor]:
        """Turn encoder tokens (B*V, gh*gw, C) into the kept layers. Blocks after the last kept layer are not computed."""
        count, scenes, (rows, cols) = len(patches), len(patches) // views, grid
        wanted = {layer % self.config.layers for layer in keep}
        registers = self.register_token[0].expand(count, -1, -1).to(patches.dtype)
        x = torch.cat([registers, patches], dim=1)
        within = self.rotary(self.config.registers, rows, cols, 1, x.device)
        across = self.rotary(self.config.registers, rows, cols, views, x.device)
        kept: dict[int, Tensor] = {}
        for layer in range(max(wanted) + 1):
            x = inside = self.decoder[2 * layer](x, within)
            x = self.decoder[2 * layer + 1](x.unflatten(0, (scenes, views)).flatten(1, 2), across)
            x = x.unflatten(1, (views, -1)).flatten(0, 1)
            if layer in wanted:
                kept[layer] = torch.cat([inside, x], dim=-1).unflatten(0, (scenes, views))
        return kept

    def forward(self, images: Tensor, keep: Sequence[int] = (-1,)) -> dict[int, Tensor]:
        """Return kept layers by non-negative index. ``keep`` may count from the end (-1 is the last)."""
        grid = (images.shape[-2] // self.config.patch, images.shape[-1] // self.config.patch)
        return self.decode(self.patch_tokens(images), images.shape[1], grid, keep)
