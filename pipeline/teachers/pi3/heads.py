"""Heads of Pi3 over the decoder's last layer: points in each view's own camera frame, confidence, camera pose.

Each head is a small transformer within views followed by linear layers. Maps come as one row of pixels per token, so that a
mean over a token's patch needs no full-size image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.pi3.config import Pi3Config
from pipeline.teachers.vggt.layers import Attention, Mlp


class HeadBlock(nn.Module):
    """Pre-norm block without q/k norm and without layer scale."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, qk_norm=False)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.norm1(x), table)
        return x + self.mlp(self.norm2(x))


class HeadDecoder(nn.Module):
    """Tokens (N,P,2C) of single views -> (N,P,out), special tokens included."""

    def __init__(self, config: Pi3Config, out: int):
        super().__init__()
        self.projects = nn.Linear(config.dim, config.head_width)
        self.blocks = nn.ModuleList(HeadBlock(config.head_width, config.head_heads) for _ in range(config.head_depth))
        self.linear_out = nn.Linear(config.head_width, out)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        x = self.projects(x)
        for block in self.blocks:
            x = block(x, table)
        return self.linear_out(x)


class PatchMap(nn.Module):
    """Patch tokens (N, gh*gw, C) -> the values of their pixels (N, gh*gw, patch*patch, channels)."""

    def __init__(self, width: int, channels: int, patch: int):
        super().__init__()
        self.channels = channels
        self.proj = nn.Linear(width, channels * patch * patch)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj(tokens).unflatten(-1, (self.channels, -1)).transpose(-1, -2)


class Residual(nn.Module):
    """y + three linear layers with ReLU. The names are the released checkpoint's; nothing is a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.res_conv1 = nn.Linear(width, width)
        self.res_conv2 = nn.Linear(width, width)
        self.res_conv3 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res_conv3(self.res_conv2(self.res_conv1(x).relu()).relu()).relu()


class CameraNumbers(NamedTuple):
    """The camera head's numbers before they become a pose: ``translation`` (...,3), ``matrix`` (...,3,3), any numbers."""

    translation: Tensor
    matrix: Tensor


class CameraHead(nn.Module):
    """Patch tokens (N, gh*gw, C) of single views -> the numbers of their poses."""

    def __init__(self, width: int):
        super().__init__()
        self.res_conv = nn.ModuleList(Residual(width) for _ in range(2))
        self.more_mlps = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_rot = nn.Linear(width, 9)

    def forward(self, tokens: Tensor) -> CameraNumbers:
        for block in self.res_conv:
            tokens = block(tokens)
        x = self.more_mlps(tokens.mean(1))
        return CameraNumbers(self.fc_t(x), self.fc_rot(x).unflatten(-1, (3, 3)))


def poses_of(numbers: CameraNumbers) -> Tensor:
    """Return camera-to-world matrices (...,4,4): the rotation nearest to the matrix with its rows scaled to length 1.

    Apart from the head because the singular values of a matrix on a GPU make the host wait.
    """
    left, _, right = torch.linalg.svd(F.normalize(numbers.matrix, dim=-1))
    sign = torch.linalg.det(left @ right)
    scale = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    rotation = (left * scale[..., None, :]) @ right
    top = torch.cat([rotation, numbers.translation[..., None]], dim=-1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=top.dtype, device=top.device).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def relative_to_first(poses: Tensor) -> Tensor:
    """Move world_from_camera (V,4,4) from any world to that of the first view's camera, whose pose is exactly the identity."""
    turn, centre = poses[:1, :3, :3].transpose(-1, -2), poses[:1, :3, 3:]
    moved = poses.clone()
    moved[:, :3, :3] = turn @ poses[:, :3, :3]
    moved[:, :3, 3:] = turn @ (poses[:, :3, 3:] - centre)
    moved[0] = torch.eye(4, dtype=poses.dtype, device=poses.device)
    return moved
