"""Heads that Pi3X has in place of Pi3's: maps by upsampling convolutions, and the scale of the scene in metres.

Source: the network definition of yyfz/Pi3 (``ConvHead``, which it takes from MoGe, and ``ContextOnlyTransformerDecoder``),
restated; names are the released checkpoint's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.pi3.config import Pi3Config
from pipeline.teachers.vggt.layers import Mlp, RotaryTable, rotate

GROUP = 32
"""Channels per group of the inner group norms."""


def _conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, padding_mode="replicate")


def with_places(x: Tensor, aspect: float) -> Tensor:
    """Append two channels to (N,c,h,w): x and y of the cells, scaled so that the image's corners lie on the unit circle."""
    height, width = x.shape[-2:]
    diagonal = (1 + aspect**2) ** 0.5
    spans = (aspect / diagonal * (width - 1) / width, 1 / diagonal * (height - 1) / height)
    across = torch.linspace(-spans[0], spans[0], width, dtype=x.dtype, device=x.device)
    down = torch.linspace(-spans[1], spans[1], height, dtype=x.dtype, device=x.device)
    places = torch.stack([across.expand(height, -1), down[:, None].expand(-1, width)])
    return torch.cat([x, places.expand(len(x), -1, -1, -1)], dim=1)


class ResidualConv(nn.Module):
    """x + two 3x3 convolutions of it, each after group norm and ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = 2 * channels
        self.layers = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.ReLU(),
            _conv(channels, hidden),
            nn.GroupNorm(hidden // GROUP, hidden),
            nn.ReLU(),
            _conv(hidden, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ConvHead(nn.Module):
    """Patch tokens (N, gh*gw, C) -> one image-sized map (N,c,H,W) per entry of ``channels``."""

    def __init__(self, config: Pi3Config, channels: Sequence[int]):
        super().__init__()
        self.patch = config.patch
        sizes = (config.head_width, *config.upsample)
        self.upsample_blocks = nn.ModuleList(self._doubling(a + 2, b) for a, b in pairwise(sizes))
        self.output_block = nn.ModuleList(
            nn.Sequential(_conv(sizes[-1] + 2, config.output_channels), nn.ReLU(), nn.Conv2d(config.output_channels, count, 1))
            for count in channels
        )

    @staticmethod
    def _doubling(channels: int, out: int) -> nn.Sequential:
        larger = nn.Sequential(nn.ConvTranspose2d(channels, out, 2, stride=2), _conv(out, out))
        return nn.Sequential(larger, ResidualConv(out), ResidualConv(out))

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        size = (grid[0] * self.patch, grid[1] * self.patch)
        aspect = size[1] / size[0]
        x = tokens.transpose(1, 2).unflatten(2, grid)
        for block in self.upsample_blocks:
            x = block(with_places(x, aspect))
        x = with_places(F.interpolate(x, size, mode="bilinear", align_corners=False), aspect)
        return [block(x) for block in self.output_block]


class CrossAttention(nn.Module):
    """Queries (B,1,C) at no place over a context (B,M,C) at the places of a rotary table."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        query, key, value = (
            linear(of).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, of in ((self.q_proj, x), (self.k_proj, context), (self.v_proj, context))
        )
        out = F.scaled_dot_product_attention(query, rotate(key, table).to(value.dtype), value)
        return self.proj(out.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """Pre-norm cross-attention and MLP; the numbers of the norms are the checkpoint's."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.norm_y = nn.LayerNorm(width, eps=1e-6)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, context: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.cross_attn(self.norm2(x), self.norm_y(context), table)
        return x + self.mlp(self.norm3(x))


class MetricDecoder(nn.Module):
    """A token (B,1,2C) that reads all tokens (B,V,P,2C) of a scene -> (B,1,width)."""

    def __init__(self, config: Pi3Config):
        super().__init__()
        width, self.lead = config.metric_width, config.registers
        self.projects_x = nn.Linear(config.dim, width)
        self.projects_y = nn.Linear(config.dim, width)
        self.blocks = nn.ModuleList(CrossBlock(width, config.metric_heads) for _ in range(config.head_depth))
        self.linear_out = nn.Linear(width, width)
        self.rotary = RotaryTable(width // config.metric_heads, config.rope_base)

    def forward(self, token: Tensor, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        table = self.rotary(self.lead, grid[0], grid[1], tokens.shape[1], tokens.device)
        context = self.projects_y(tokens.flatten(1, 2))
        x = self.projects_x(token).expand(len(tokens), -1, -1)
        for block in self.blocks:
            x = block(x, context, table)
        return self.linear_out(x)
