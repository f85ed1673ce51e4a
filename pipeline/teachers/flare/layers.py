"""Transformer blocks of FLARE. Every LayerNorm has eps 1e-6; there is no q/k norm and no layer scale."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.vggt.layers import Attention, Mlp, rotate

EPS = 1e-6
Table = tuple[Tensor, Tensor]
"""cos and sin of the rotary code, (N, head_dim) each; see RotaryTable."""


def plain_norm(x: Tensor) -> Tensor:
    """Apply LayerNorm over channels, without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def residual(tokens: Tensor) -> Tensor:
    """Start a residual stream in float32, whatever type autocast gave the product before it."""
    return tokens.float() if tokens.dtype in (torch.bfloat16, torch.float16) else tokens


class CrossAttention(nn.Module):
    """Queries of one set of tokens, keys and values of another, each rotated by its own positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, table: Table, memory_table: Table) -> Tensor:
        """Let (B,N,C) attend to (B,M,C); return (B,N,C)."""
        query = rotate(self._split(self.projq(x)), table)
        key, value = rotate(self._split(self.projk(memory)), memory_table), self._split(self.projv(memory))
        out = F.scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Self-attention and MLP, pre-norm; the norms are called norm1 and norm2."""

    def __init__(self, width: int, heads: int, ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads, qk_norm=False)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, ratio * width)

    def forward(self, x: Tensor, table: Table) -> Tensor:
        x = x + self.attn(self.norm1(x), table)
        return x + self.mlp(self.norm2(x))


class SelfBlock(nn.Module):
    """The same in a decoder, where the second norm is called norm3."""

    def __init__(self, width: int, heads: int, ratio: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads, qk_norm=False)
        self.norm3 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, ratio * width)

    def forward(self, x: Tensor, table: Table) -> Tensor:
        x = x + self.attn(self.norm1(x), table)
        return x + self.mlp(self.norm3(x))


class CrossBlock(nn.Module):
    """Cross-attention and MLP, pre-norm; ``norm_y`` is the memory's norm."""

    def __init__(self, width: int, heads: int, ratio: int):
        super().__init__()
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.norm3 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, ratio * width)
        self.norm_y = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor, memory: Tensor, table: Table, memory_table: Table) -> Tensor:
        x = x + self.cross_attn(self.norm2(x), self.norm_y(memory), table, memory_table)
        return x + self.mlp(self.norm3(x))


class FullBlock(CrossBlock):
    """Self-attention before cross-attention and MLP."""

    def __init__(self, width: int, heads: int, ratio: int):
        super().__init__(width, heads, ratio)
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads, qk_norm=False)

    def forward(self, x: Tensor, memory: Tensor, table: Table, memory_table: Table) -> Tensor:
        x = x + self.attn(self.norm1(x), table)
        return super().forward(x, memory, table, memory_table)


class JointAttention(nn.Module):
    """Self-attention without positions, with the parameter names of torch's MultiheadAttention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        joint = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = joint.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class CameraBlock(nn.Module):
    """A block that normalises its input in place: the residual starts from the normalised tokens, not from the raw ones."""

    def __init__(self, width: int, heads: int, ratio: int):
        super().__init__()
        self.attn = JointAttention(width, heads)
        self.mlp = Mlp(width, ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        x = plain_norm(x)
        x = x + self.attn(x)
        return x + self.mlp(plain_norm(x))


def exchange(block: nn.Module, embed: nn.Module, pose: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Do one step: each view's pose token (B,V,C) and its tokens (B,V,N,C) attend to each other in a CameraBlock."""
    scenes, views = pose.shape[:2]
    reply = block(torch.cat([pose[:, :, None], tokens], dim=2).flatten(0, 1)).unflatten(0, (scenes, views))
    return pose + reply[:, :, 0], tokens + embed(reply[:, :, 1:])


def inject(tokens: Tensor, norm: nn.Module, embed: nn.Module, encoder_tokens: Tensor) -> Tensor:
    """Add projected tokens (B,V,P,E) of a middle encoder layer to decoder tokens (B,V,P,C)."""
    return tokens + embed(norm(encoder_tokens))


def embeddings(count: int, into: int, width: int) -> nn.ModuleList:
    """Build ``count`` linear layers without bias."""
    return nn.ModuleList(nn.Linear(into, width, bias=False) for _ in range(count))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products on the device of ``x`` keep their type (devices like "meta" never change it)."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
