"""Masked-image pretraining of a patch encoder (He et al., "Masked Autoencoders", CVPR 2022), small.

Only the visible patches go through the encoder, so a step is cheap; a one-block decoder predicts the pixels of the hidden ones.
Pixels are not normalised per patch: the mean colour of a patch is part of what the features must carry.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.encoder import PatchEncoder
from pipeline.teachers.vggt.layers import Block

DECODER_WIDTH = 64


class MaskedImageModel(nn.Module):
    """An encoder with a throw-away decoder."""

    def __init__(self, encoder: PatchEncoder, config: VGGTConfig):
        super().__init__()
        self.encoder, self.patch = encoder, config.patch
        self.into = nn.Linear(config.width, DECODER_WIDTH)
        self.hidden_token = nn.Parameter(torch.zeros(1, 1, DECODER_WIDTH))
        self.place = nn.Linear(config.width, DECODER_WIDTH, bias=False)
        self.block = Block(DECODER_WIDTH, 4, eps=1e-6, qk_norm=False, layer_scale=1.0)
        self.norm = nn.LayerNorm(DECODER_WIDTH, eps=1e-6)
        self.pixels = nn.Linear(DECODER_WIDTH, 3 * config.patch**2)

    def forward(self, images: Tensor, order: Tensor, visible: int) -> Tensor:
        """Return the mean squared error on the hidden patches.

        ``images`` (N,3,H,W) normalised; ``order`` (N,P) a random permutation of the patches of each image, of which the
        first ``visible`` are shown.
        """
        tokens = self.encoder.embed(images)
        count, width = tokens.shape[0], tokens.shape[2]
        shown = order[:, :visible]
        encoded = self.into(self.encoder.encode(tokens.gather(1, shown[..., None].expand(-1, -1, width))))
        full = self.hidden_token.expand(count, order.shape[1], -1)
        full = full.scatter(1, shown[..., None].expand(-1, -1, DECODER_WIDTH), encoded)
        rows, cols = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        place = self.place(self.encoder.positions(rows, cols, square_image=rows == cols))
        predicted = self.pixels(self.norm(self.block(full + place)))
        hidden = order[:, visible:, None]
        target = self.patches(images).gather(1, hidden.expand(-1, -1, predicted.shape[2]))
        return (predicted.gather(1, hidden.expand(-1, -1, predicted.shape[2])) - target).square().mean()

    def patches(self, images: Tensor) -> Tensor:
        """Return the pixels of the patches (N,P,3*p*p), row-major."""
        cut = images.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        return cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
