"""Stage 3 of FLARE: geometry in one common frame, from camera-centric geometry and better cameras."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.teachers.flare.coarse import Posed
from pipeline.teachers.flare.config import FLAREConfig
from pipeline.teachers.flare.encoder import Encoded
from pipeline.teachers.flare.fine import Fine
from pipeline.teachers.flare.layers import (
    EPS,
    CameraBlock,
    CrossBlock,
    SelfBlock,
    embeddings,
    exchange,
    inject,
    without_autocast,
)
from pipeline.teachers.flare.pose import PoseHead, start_tokens
from pipeline.teachers.vggt.layers import RotaryTable


class PointGeometry(nn.Module):
    """Encoder tokens, stage 2's layers and cameras -> tokens of global geometry. The second pose head belongs here."""

    def __init__(self, config: FLAREConfig):
        super().__init__()
        width, heads, ratio, depth = config.decoder_width, config.decoder_heads, config.mlp_ratio, config.decoder_depth
        self.inject_after = config.inject
        self.dec_cam_norm_fine = nn.LayerNorm(width, eps=EPS)
        self.pose_head_stage2 = PoseHead(config)
        self.decoder_embed_point = nn.Linear(config.width, width)
        self.pose_token_ref_point = nn.Parameter(torch.zeros(1, 1, width))
        self.pose_token_source_point = nn.Parameter(torch.zeros(1, 1, width))
        self.cam_cond_embed_point_pre = embeddings(depth, width, width)
        self.dec_blocks_point_cross = nn.ModuleList(CrossBlock(width, heads, ratio) for _ in range(depth))
        self.dec_blocks_point = nn.ModuleList(SelfBlock(width, heads, ratio) for _ in range(depth))
        self.cam_cond_encoder_point = nn.ModuleList(CameraBlock(width, heads, ratio) for _ in range(depth))
        self.cam_cond_embed_point = embeddings(depth, width, width)
        self.inject_stage3 = embeddings(len(config.inject), config.width, width)
        self.enc_inject_stage3 = nn.ModuleList(nn.LayerNorm(config.width, eps=EPS) for _ in config.inject)
        self.dec_norm_point = nn.LayerNorm(width, eps=EPS)
        self.rotary = RotaryTable(width // heads, config.rope_base, first=0)

    def cameras(self, fine: Fine) -> Posed:
        """Estimate better cameras from stage 2's pose tokens."""
        pose = self.dec_cam_norm_fine(fine.pose_tokens)
        return Posed(pose, self.pose_head_stage2(pose))

    def forward(self, encoded: Encoded, fine: Fine, known: Tensor) -> Tensor:
        """Compute tokens (B,V,P,C) after the norm. ``known`` (B,V,C): the embedded cameras."""
        for x in self.steps(encoded, fine, known):
            last = x
        return self.dec_norm_point(last)

    def steps(self, encoded: Encoded, fine: Fine, known: Tensor) -> Iterator[Tensor]:
        """Yield the tokens (B,V,P,C) after every block."""
        with without_autocast(encoded.tokens):
            x = self.decoder_embed_point(encoded.tokens.float())
        scenes, views, count = x.shape[:3]
        within, across = self.rotary(0, *encoded.grid, 1, x.device), self.rotary(0, *encoded.grid, views, x.device)
        pose = start_tokens(self.pose_token_ref_point, self.pose_token_source_point, scenes, views) + known
        for i, block in enumerate(self.dec_blocks_point):
            memory = fine.layers[i] + self.cam_cond_embed_point_pre[i](pose)[:, :, None]
            x = self.dec_blocks_point_cross[i](x.flatten(0, 1), memory.flatten(0, 1), within, within)
            x = block(x.unflatten(0, (scenes, views)).flatten(1, 2), across).unflatten(1, (views, count))
            pose, x = exchange(self.cam_cond_encoder_point[i], self.cam_cond_embed_point[i], pose, x)
            if i in self.inject_after:
                j = self.inject_after.index(i)
                x = inject(x, self.enc_inject_stage3[j], self.inject_stage3[j], encoded.inputs[2 * i])
            yield x
