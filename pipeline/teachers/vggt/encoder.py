"""The patch encoder of VGGT: a DINOv2 vision transformer with registers (state-dict keys ``aggregator.patch_embed.*``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.layers import Block

REGISTERS = 4


class PatchProjection(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Turn (N,3,H,W) into row-major tokens (N, gh*gw, C)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class PatchEncoder(nn.Module):
    """Images (N,3,H,W), normalised -> patch tokens (N, gh*gw, C) after the final LayerNorm; special tokens are dropped."""

    def __init__(self, config: VGGTConfig):
        super().__init__()
        width, self.side = config.width, config.image_px // config.patch
        self.patch = config.patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchProjection(width, config.patch)
        self.blocks = nn.ModuleList(
            Block(width, config.encoder_heads, eps=1e-6, qk_norm=False, layer_scale=config.layer_scale)
            for _ in range(config.encoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, rows: int, cols: int, *, square_image: bool) -> Tensor:
        """Return the position code (1, rows*cols, C) of the patches: the learned square, resized where it does not fit."""
        learned = self.pos_embed[:, 1:]
        if square_image and rows * cols == self.side**2:
            return learned
        square = learned.float().unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        resized = F.interpolate(square, size=(rows, cols), mode="bicubic", antialias=True, align_corners=False)
        return resized.permute(0, 2, 3, 1).flatten(1, 2).to(learned.dtype)

    def embed(self, images: Tensor) -> Tensor:
        """Return patch tokens with positions (N, gh*gw, C), before any block."""
        height, width = images.shape[-2:]
        rows, cols = height // self.patch, width // self.patch
        return self.patch_embed(images) + self.positions(rows, cols, square_image=height == width)

    def encode(self, tokens: Tensor) -> Tensor:
        """Run any subset of embedded patch tokens (N,M,C) through the blocks -> (N,M,C)."""
        count = len(tokens)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(count, -1, -1)
        x = torch.cat([cls, self.register_tokens.expand(count, -1, -1), tokens], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 1 + REGISTERS :])

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(self.embed(images))
