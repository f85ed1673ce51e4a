"""Transformer blocks shared by the encoder, the aggregator and the camera head, and the rotary position code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RotaryTable(nn.Module):
    """2D rotary code: half of a head's channels carries the row, half the column; special tokens stay unrotated.

    Tables are computed once per grid and device and kept: no work and no host synchronisation in the blocks. ``first`` is the
    position of the first row and column (VGGT 1, so that special tokens have 0 to themselves; FLARE 0).
    """

    def __init__(self, head_dim: int, base: float, first: int = 1):
        super().__init__()
        self.head_dim, self.base, self.first = head_dim, base, first
        self._tables: dict[tuple[int, int, int, int, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(self, lead: int, rows: int, cols: int, repeat: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cos and sin (repeat*(lead+rows*cols), head_dim) for ``repeat`` views' [special, row-major patch] tokens."""
        key = (lead, rows, cols, repeat, device)
        if key not in self._tables:
            if len(self._tables) > 16:
                self._tables.clear()
            with torch.inference_mode(False):  # so that a table made while encoding also serves training
                self._tables[key] = self._build(lead, rows, cols, repeat, device)
        return self._tables[key]

    def _build(self, lead: int, rows: int, cols: int, repeat: int, device: torch.device) -> tuple[Tensor, Tensor]:
        axis = self.head_dim // 2
        frequency = 1.0 / (self.base ** (torch.arange(0, axis, 2, dtype=torch.float32) / axis))
        first = self.first
        row, col = torch.meshgrid(torch.arange(first, first + rows), torch.arange(first, first + cols), indexing="ij")
        position = torch.stack([row.flatten(), col.flatten()], dim=-1)
        position = torch.cat([torch.zeros(lead, 2, dtype=position.dtype), position]).float()
        angle = (position[:, :, None] * frequency).repeat(1, 1, 2).flatten(1).repeat(repeat, 1)
        return angle.cos().to(device), angle.sin().to(device)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate queries or keys (..., N, head_dim) by the table; channels of each axis pair up as (k, k + quarter)."""
    pairs = x.unflatten(-1, (2, 2, -1))
    turned = torch.stack([-pairs[..., 1, :], pairs[..., 0, :]], dim=-2).flatten(-3)
    return x * table[0].to(x.dtype) + turned * table[1].to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with a fused qkv projection; optional q/k LayerNorm over the head's channels and rotation."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if qk_norm:
            self.q_norm = nn.LayerNorm(width // heads, eps=1e-5)
            self.k_norm = nn.LayerNorm(width // heads, eps=1e-5)
        self.qk_norm = qk_norm

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor] | None = None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        # Norm and rotation are float32 under autocast; the product itself runs in the type of the projections.
        out = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm block: x += ls1 * attention(norm1(x)); x += ls2 * mlp(norm2(x))."""

    def __init__(self, width: int, heads: int, *, eps: float, qk_norm: bool, layer_scale: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, 4 * width)
        self.ls2 = LayerScale(width, layer_scale)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), table))
        return x + self.ls2(self.mlp(self.norm2(x)))
