"""Stage 2 of FLARE: geometry in each camera's own frame, from fine tokens of all views that know their rough cameras."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.teachers.flare.config import FLAREConfig
from pipeline.teachers.flare.encoder import Encoded
from pipeline.teachers.flare.layers import EPS, CameraBlock, SelfBlock, embeddings, exchange, inject, residual, without_autocast
from pipeline.teachers.flare.pose import camera_numbers, start_tokens
from pipeline.teachers.vggt.layers import Mlp, RotaryTable


@dataclass(frozen=True, slots=True)
class Fine:
    """Stage 2's ``layers`` (B,V,P,C): outputs of the kept blocks, the last normalised; ``pose_tokens`` (B,V,C): not so."""

    layers: dict[int, Tensor]
    pose_tokens: Tensor


class FineGeometry(nn.Module):
    """Encoder tokens and cameras -> tokens of camera-centric geometry."""

    def __init__(self, config: FLAREConfig):
        super().__init__()
        width, heads, ratio, depth = config.decoder_width, config.decoder_heads, config.mlp_ratio, config.decoder_depth
        self.inject_after = config.inject
        self.embed_pose = Mlp(7, width, width)
        self.decoder_embed_fine = nn.Linear(config.width, width)
        self.pose_token_ref_fine = nn.Parameter(torch.zeros(1, 1, width))
        self.pose_token_source_fine = nn.Parameter(torch.zeros(1, 1, width))
        self.adaLN_modulation = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width)) for _ in range(depth))
        self.dec_blocks_fine = nn.ModuleList(SelfBlock(width, heads, ratio) for _ in range(depth))
        self.cam_cond_encoder_fine = nn.ModuleList(CameraBlock(width, heads, ratio) for _ in range(depth))
        self.cam_cond_embed_fine = embeddings(depth, width, width)
        self.inject_stage2 = embeddings(len(config.inject), config.width, width)
        self.enc_inject_stage2 = nn.ModuleList(nn.LayerNorm(config.width, eps=EPS) for _ in config.inject)
        self.dec_norm_fine = nn.LayerNorm(width, eps=EPS)
        self.rotary = RotaryTable(width // heads, config.rope_base, first=0)

    def embedded(self, cameras: Tensor) -> Tensor:
        """Return what later stages know of cameras (B,V,9): (B,V,C), in float32."""
        with without_autocast(cameras):
            return self.embed_pose(camera_numbers(cameras))

    def forward(self, encoded: Encoded, cameras: Tensor, *, keep_all: bool) -> Fine:
        """Run stage 2 on ``cameras`` (B,V,9) of stage 1. ``keep_all``: keep every block's output (stage 3), else the last."""
        x = residual(self.decoder_embed_fine(encoded.tokens))
        scenes, views, count = x.shape[:3]
        table = self.rotary(0, *encoded.grid, views, x.device)
        known = self.embedded(cameras)
        pose = start_tokens(self.pose_token_ref_fine, self.pose_token_source_fine, scenes, views)
        layers: dict[int, Tensor] = {}
        for i, block in enumerate(self.dec_blocks_fine):
            shift, scale, _ = self.adaLN_modulation[i](known).chunk(3, dim=-1)
            pose = pose * (1 + scale) + shift
            x = block(x.flatten(1, 2), table).unflatten(1, (views, count))
            pose, x = exchange(self.cam_cond_encoder_fine[i], self.cam_cond_embed_fine[i], pose, x)
            if i in self.inject_after:
                j = self.inject_after.index(i)
                x = inject(x, self.enc_inject_stage2[j], self.inject_stage2[j], encoded.inputs[2 * i])
            if keep_all:
                layers[i] = x
        layers[len(self.dec_blocks_fine) - 1] = self.dec_norm_fine(x)
        return Fine(layers, pose)
