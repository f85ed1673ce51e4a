"""Stage 0 of FLARE: the CroCo image encoder, which sees every view by itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.teachers.flare.config import FLAREConfig
from pipeline.teachers.flare.layers import EPS, EncoderBlock, residual
from pipeline.teachers.vggt.layers import RotaryTable


class Patches(nn.Module):
    """Non-overlapping windows of a map to tokens."""

    def __init__(self, channels: int, width: int, side: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, side, stride=side)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn (N,c,H,W) into row-major tokens (N, H/side * W/side, C)."""
        return self.proj(maps).flatten(2).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoder output: ``tokens`` (B,V,P,C) after the norm, their ``grid`` (rows, columns), inputs of the wanted blocks."""

    tokens: Tensor
    grid: tuple[int, int]
    inputs: dict[int, Tensor]


class Encoder(nn.Module):
    """Images (B,V,3,H,W) in [0,1] -> tokens."""

    def __init__(self, config: FLAREConfig):
        super().__init__()
        self.config = config
        self.patch_embed = Patches(3, config.width, config.patch)
        self.enc_blocks = nn.ModuleList(EncoderBlock(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.enc_norm = nn.LayerNorm(config.width, eps=EPS)
        self.rotary = RotaryTable(config.width // config.heads, config.rope_base, first=0)

    def forward(self, images: Tensor, keep: frozenset[int] = frozenset()) -> Encoded:
        """Encode images. ``keep``: blocks whose inputs are wanted (not normalised)."""
        scenes, views = images.shape[:2]
        grid = (images.shape[-2] // self.config.patch, images.shape[-1] // self.config.patch)
        x = residual(self.patch_embed((images.flatten(0, 1) - 0.5) / 0.5))
        table = self.rotary(0, *grid, 1, x.device)
        inputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.enc_blocks):
            if number in keep:
                inputs[number] = x.unflatten(0, (scenes, views))
            x = block(x, table)
        return Encoded(self.enc_norm(x).unflatten(0, (scenes, views)), grid, inputs)


def as_maps(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reshape tokens (B,V,P,C) of all views to maps (B*V,C,rows,columns)."""
    return tokens.flatten(0, 1).transpose(1, 2).unflatten(2, grid)
