"""The whole network with the released state dict's names. The point tracker is not part of it: no teacher needs it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pipeline.teachers.vggt.aggregator import Aggregator
from pipeline.teachers.vggt.camera import CameraHead
from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.dense import DenseHead

NOT_BUILT = "track_head."
"""Prefix of the released checkpoint's entries that this network leaves out."""

Head = Literal["camera", "depth", "point"]
HEADS: tuple[Head, ...] = ("camera", "depth", "point")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The network's predictions for scenes of V views, in each scene's normalised unit of length.

    ``pose_codes`` (B,V,9) per iteration; ``depth`` (B,U,h,w) and ``points`` (B,U,h,w,3) in the first view's camera frame, with
    confidences (B,U,h,w), of the U views that were asked for; ``tokens`` (B,V,P,2C): the last layer's patch tokens.
    """

    pose_codes: list[Tensor]
    depth: Tensor
    depth_confidence: Tensor
    points: Tensor
    points_confidence: Tensor
    tokens: Tensor


class VGGT(nn.Module):
    """Aggregator and the heads that are asked for: camera, depth, point. A head that is not built takes no memory."""

    def __init__(self, config: VGGTConfig, heads: Collection[Head] = HEADS):
        super().__init__()
        self.config, self.heads = config, frozenset(heads)
        self.aggregator = Aggregator(config)
        if "camera" in heads:
            self.camera_head = CameraHead(config)
        if "point" in heads:
            self.point_head = DenseHead(config, 4, "inv_log")
        if "depth" in heads:
            self.depth_head = DenseHead(config, 2, "exp")

    def forward(self, images: Tensor, dense: Sequence[int] | None = None) -> Prediction:
        """Run all heads on images (B,V,3,H,W) in [0,1], H and W multiples of the patch. ``dense``: views with maps (all)."""
        last = self.config.depth - 1
        layers = self.aggregator(images, (*self.config.dpt_layers, last))
        size = (images.shape[-2], images.shape[-1])
        codes = self.camera_head(layers[last][:, :, 0])
        tokens = layers[last][:, :, self.config.lead :]
        if dense is not None:
            layers = {layer: value[:, list(dense)] for layer, value in layers.items()}
        depth, depth_confidence = self.depth_head(layers, size)
        points, points_confidence = self.point_head(layers, size)
        return Prediction(codes, depth[..., 0], depth_confidence, points, points_confidence, tokens)
