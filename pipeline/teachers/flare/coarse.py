"""Stage 1 of FLARE: rough cameras from few tokens, with one decoder for the reference view and one for all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.teachers.flare.config import FLAREConfig
from pipeline.teachers.flare.encoder import Encoded, Patches, as_maps
from pipeline.teachers.flare.layers import EPS, CameraBlock, FullBlock, embeddings, exchange, residual
from pipeline.teachers.flare.pose import PoseHead, start_tokens
from pipeline.teachers.vggt.layers import RotaryTable


@dataclass(frozen=True, slots=True)
class Posed:
    """Pose estimates: ``pose_tokens`` (B,V,C) after their norm and ``cameras`` (B,V,9) of every iteration of the pose head."""

    pose_tokens: Tensor
    cameras: list[Tensor]


class CoarsePose(nn.Module):
    """Encoder tokens -> first cameras. Needs two views or more."""

    def __init__(self, config: FLAREConfig):
        super().__init__()
        width, heads, ratio, depth = config.decoder_width, config.decoder_heads, config.mlp_ratio, config.decoder_depth
        self.factor = config.coarse
        self.patch_embed_coarse2 = Patches(config.width, config.width, config.coarse)
        self.enc_norm_coarse = nn.LayerNorm(config.width, eps=EPS)
        self.decoder_embed = nn.Linear(config.width, width)
        self.pose_token_ref = nn.Parameter(torch.zeros(1, 1, width))
        self.pose_token_source = nn.Parameter(torch.zeros(1, 1, width))
        self.dec_blocks = nn.ModuleList(FullBlock(width, heads, ratio) for _ in range(depth))
        self.dec_blocks2 = nn.ModuleList(FullBlock(width, heads, ratio) for _ in range(depth))
        self.cam_cond_encoder = nn.ModuleList(CameraBlock(width, heads, ratio) for _ in range(depth))
        self.cam_cond_embed = embeddings(depth, width, width)
        self.dec_cam_norm = nn.LayerNorm(width, eps=EPS)
        self.pose_head = PoseHead(config)
        self.rotary = RotaryTable(width // heads, config.rope_base, first=0)

    def tokens(self, encoded: Encoded) -> Tensor:
        """Return coarse tokens (B,V,Pc,E): windows of encoder tokens."""
        maps = self.patch_embed_coarse2(as_maps(encoded.tokens, encoded.grid))
        return self.enc_norm_coarse(maps).unflatten(0, encoded.tokens.shape[:2])

    def forward(self, encoded: Encoded) -> Posed:
        x = residual(self.decoder_embed(self.tokens(encoded)))
        scenes, views, count = x.shape[:3]
        rows, cols = (side // self.factor for side in encoded.grid)
        here, there = self.rotary(0, rows, cols, 1, x.device), self.rotary(0, rows, cols, views - 1, x.device)
        pose = start_tokens(self.pose_token_ref, self.pose_token_source, scenes, views)
        blocks = zip(self.dec_blocks, self.dec_blocks2, self.cam_cond_encoder, self.cam_cond_embed, strict=True)
        for first_block, other_block, camera_block, embed in blocks:
            first, others = x[:, 0], x[:, 1:].flatten(1, 2)
            first, others = first_block(first, others, here, there), other_block(others, first, there, here)
            x = torch.cat([first[:, None], others.unflatten(1, (views - 1, count))], dim=1)
            pose, x = exchange(camera_block, embed, pose, x)
        pose = self.dec_cam_norm(pose)
        return Posed(pose, self.pose_head(pose))
