"""Sizes of the FLARE network (Zhang et al., CVPR 2025, arXiv 2502.12138): the released one and an untrained tiny one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FeatureLayer = Literal["enc_norm", "dec_norm_fine", "dec_norm_point"]


@dataclass(frozen=True, slots=True)
class FLAREConfig:
    """Widths, depths and the size of the image that the network sees.

    ``image_height`` and ``image_width`` are multiples of ``patch * coarse`` with width >= height. ``inject`` are the decoder
    blocks after which encoder tokens are added; block i gets what went into encoder block 2i.
    """

    image_height: int = 384
    image_width: int = 512
    patch: int = 16
    coarse: int = 4
    width: int = 1024
    depth: int = 24
    heads: int = 16
    decoder_width: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    mlp_ratio: int = 4
    inject: tuple[int, ...] = (2, 5, 8)
    rope_base: float = 100.0
    pose_depth: int = 4
    pose_heads: int = 8
    pose_mlp_ratio: int = 4
    pose_iterations: int = 4

    @property
    def harmonics(self) -> int:
        """Return the number of frequencies per pose number; 42 in the released size."""
        return (self.decoder_width // 9) // 2

    def feature_layer_width(self, feature_layer: FeatureLayer) -> int:
        """Return the channels of a feature layer's tokens."""
        return self.width if feature_layer == "enc_norm" else self.decoder_width


RELEASED = FLAREConfig()
"""The geometry and pose model: the feature_layers need 1,178,054,674 numbers of its checkpoint."""

TINY = FLAREConfig(
    image_height=128,
    image_width=128,
    width=64,
    depth=3,
    heads=4,
    decoder_width=48,
    decoder_depth=2,
    decoder_heads=4,
    mlp_ratio=2,
    inject=(0, 1),
    pose_depth=1,
    pose_heads=4,
    pose_mlp_ratio=2,
    pose_iterations=2,
)
"""For tests and dry runs, with random weights: 8 x 8 tokens of the central square of an image."""
