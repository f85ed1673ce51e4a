"""Cameras of FLARE: the iterative pose head and the 7 numbers by which later stages know a camera.

Both stay in float32: the code's harmonics reach frequency 2^41, where half precision would be noise. Even in float32
iterations 2 and later differ between machines, because one unit in the last place of a pose number changes 42 % of the 756
sinusoids by more than 0.1 (upstream's design); the first iteration starts from zero and does not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.flare.config import FLAREConfig
from pipeline.teachers.flare.layers import CameraBlock, plain_norm, without_autocast
from pipeline.teachers.vggt.layers import Mlp

CODE = 9
FOCAL_MIN, FOCAL_MAX = 0.1, 30.0


class PoseHead(nn.Module):
    """Pose tokens (B,V,C) -> cameras (B,V,9) of every iteration, the last one being the answer.

    A camera is translation (3), quaternion (4, real part first, any norm) and focal lengths (2, clamped to [0.1, 30]).
    """

    def __init__(self, config: FLAREConfig):
        super().__init__()
        width, self.harmonics = config.decoder_width, config.harmonics
        self.iterations = config.pose_iterations
        self.pose_token_ref = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.pose_proj = nn.Linear(CODE * (2 * self.harmonics + 1), width)
        self.trunk = nn.Sequential(
            *(CameraBlock(width, config.pose_heads, config.pose_mlp_ratio) for _ in range(config.pose_depth))
        )
        self.pose_branch = Mlp(width, 2 * width, width + CODE)
        self.ffeat_updater = nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, tokens: Tensor) -> list[Tensor]:
        with without_autocast(tokens):
            return self._refine(tokens.float())

    def _refine(self, start: Tensor) -> list[Tensor]:
        x, code = start, start.new_zeros(*start.shape[:2], CODE)
        cameras = []
        for _ in range(self.iterations):
            x = x + self.pose_proj(self._waves(code))
            x = self.trunk(torch.cat([x[:, :1] + self.pose_token_ref[:, 0], x[:, 1:]], dim=1))
            change = self.pose_branch(x)
            code = code + change[..., :CODE]
            x = (self.ffeat_updater(plain_norm(change[..., CODE:])) + x + start) / 2
            focal = F.softplus(code[..., 7:]).clamp(FOCAL_MIN, FOCAL_MAX)
            cameras.append(torch.cat([code[..., :7], focal], dim=-1))
        return cameras

    def _waves(self, code: Tensor) -> Tensor:
        """Return the code and its harmonics, (B,V,9*(2n+1))."""
        # Integer powers are exact on every device; a power of floats may be off by a few units in the last place.
        frequencies = (2 ** torch.arange(self.harmonics, device=code.device)).to(code.dtype)
        angles = (code[..., None] * frequencies).flatten(-2)
        # sin(z + pi/2) is not cos(z) for large z in float32, and the weights were trained with the former.
        return torch.cat([angles.sin(), (angles + math.pi / 2).sin(), code], dim=-1)


def camera_numbers(cameras: Tensor) -> Tensor:
    """Turn cameras (B,V,9) into quaternion and translation (B,V,7), the latter in units of the views' mean distance."""
    translation = cameras[..., :3]
    distance = translation.norm(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
    return torch.cat([cameras[..., 3:7], translation / (distance + 1e-8)], dim=-1)


def start_tokens(first: Tensor, others: Tensor, scenes: int, views: int) -> Tensor:
    """Return pose tokens (B,V,C) before the first block: one kind (1,1,C) for the reference view, one for all others."""
    return torch.cat([first, others.expand(-1, views - 1, -1)], dim=1).expand(scenes, -1, -1)
