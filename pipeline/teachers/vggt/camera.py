"""The camera head of VGGT: iterative refinement of a 9-number pose code, and the code itself.

Code: translation (3), quaternion x, y, z, w (scalar last, any norm), vertical and horizontal field of view in radians; of the
transform world -> camera in OpenCV axes, where the world is the first view's camera.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.layers import Block, Mlp

CODE = 9


class CameraHead(nn.Module):
    """Camera tokens (B,V,2C) -> pose codes (B,V,9) of every iteration, the last one being the answer."""

    def __init__(self, config: VGGTConfig):
        super().__init__()
        width = config.dim
        self.iterations = config.camera_iterations
        self.trunk = nn.Sequential(
            *(
                Block(width, config.camera_heads, eps=1e-5, qk_norm=False, layer_scale=config.layer_scale)
                for _ in range(config.camera_depth)
            )
        )
        self.token_norm = nn.LayerNorm(width, eps=1e-5)
        self.trunk_norm = nn.LayerNorm(width, eps=1e-5)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, CODE))
        self.embed_pose = nn.Linear(CODE, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.pose_branch = Mlp(width, width // 2, CODE)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        x = self.token_norm(tokens)
        raw: Tensor | None = None
        codes = []
        for _ in range(self.iterations):
            # The raw code is fed back detached: each iteration learns to correct what it is given.
            guess = self.empty_pose_tokens.expand(*x.shape[:2], -1) if raw is None else raw.detach()
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(guess)).chunk(3, dim=-1)
            y = gate * (F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift) + x
            change = self.pose_branch(self.trunk_norm(self.trunk(y)))
            raw = change if raw is None else raw + change
            codes.append(torch.cat([raw[..., :7], raw[..., 7:].relu()], dim=-1))
        return codes


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Return rotation matrices (...,3,3) of quaternions (...,4) x, y, z, w of any norm."""
    x, y, z, w = quaternion.unbind(-1)
    s = 2.0 / (quaternion * quaternion).sum(-1)
    rows = [
        torch.stack([1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)], -1),
        torch.stack([s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)], -1),
        torch.stack([s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, dim=-2)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Return unit quaternions (...,4) x, y, z, w with w >= 0 of rotation matrices (...,3,3), by their largest component."""
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack([1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], -1)
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    xw, yw, zw = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    # Row i is 4 * q_i * (x, y, z, w); dividing by 4 * q_i is safe in the row of the largest component only.
    rows = torch.stack(
        [
            torch.stack([squares[..., 0], xy, xz, xw], -1),
            torch.stack([xy, squares[..., 1], yz, yw], -1),
            torch.stack([xz, yz, squares[..., 2], zw], -1),
            torch.stack([xw, yw, zw, squares[..., 3]], -1),
        ],
        dim=-2,
    )
    best = squares.argmax(-1)[..., None, None].expand(*rows.shape[:-2], 1, 4)
    quaternion = F.normalize(rows.gather(-2, best)[..., 0, :], dim=-1)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def encode_pose(camera_from_world: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the pose code (...,9) of extrinsics (...,3 or 4,4) and intrinsics (...,3,3) of an image of (height, width)."""
    fov_h = 2 * torch.atan(size[0] / 2 / intrinsics[..., 1, 1])
    fov_w = 2 * torch.atan(size[1] / 2 / intrinsics[..., 0, 0])
    quaternion = matrix_to_quaternion(camera_from_world[..., :3, :3])
    return torch.cat([camera_from_world[..., :3, 3], quaternion, fov_h[..., None], fov_w[..., None]], dim=-1)


def decode_pose(code: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return extrinsics (...,3,4) world -> camera and intrinsics (...,3,3) with the image centre as principal point."""
    extrinsics = torch.cat([quaternion_to_matrix(code[..., 3:7]), code[..., :3, None]], dim=-1)
    intrinsics = torch.zeros(*code.shape[:-1], 3, 3, dtype=code.dtype, device=code.device)
    intrinsics[..., 0, 0] = size[1] / 2 / torch.tan(code[..., 8] / 2)
    intrinsics[..., 1, 1] = size[0] / 2 / torch.tan(code[..., 7] / 2)
    intrinsics[..., 0, 2], intrinsics[..., 1, 2], intrinsics[..., 2, 2] = size[1] / 2, size[0] / 2, 1.0
    return extrinsics, intrinsics
