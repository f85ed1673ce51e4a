"""Sizes of Pi3 (Wang et al., "Pi3: Permutation-Equivariant Visual Geometry Learning", arXiv 2507.13347) and of Pi3X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.teachers.vggt.config import VGGTConfig

Variant = Literal["pi3", "pi3x"]


@dataclass(frozen=True, slots=True)
class Pi3Config:
    """Widths and depths. ``depth`` counts decoder blocks: even ones look within a view, odd ones across all views.

    ``image_px`` / ``patch`` is the side of the encoder's learned position grid; ``pixel_limit`` the largest area of an input
    image in pixels. ``layer_scale`` is only the initial value; a checkpoint overrides it. ``head_*`` are the sizes of the
    small transformers of the heads, ``camera_width`` that of the camera head. From ``upsample`` on: Pi3X alone.
    """

    image_px: int = 518
    patch: int = 14
    pixel_limit: int = 255_000
    width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    depth: int = 36
    heads: int = 16
    registers: int = 5
    rope_base: float = 100.0
    layer_scale: float = 0.01
    head_width: int = 1024
    head_depth: int = 5
    head_heads: int = 16
    camera_width: int = 512
    upsample: tuple[int, int, int] = (256, 128, 64)
    output_channels: int = 32
    metric_width: int = 512
    metric_heads: int = 8

    @property
    def dim(self) -> int:
        """Return the width of a layer: the concatenated outputs of a block within views and of the next one across views."""
        return 2 * self.width

    @property
    def layers(self) -> int:
        """Return the number of such pairs of blocks."""
        return self.depth // 2

    @property
    def encoder(self) -> VGGTConfig:
        """Return the patch encoder's configuration; it is built like VGGT's."""
        return VGGTConfig(
            image_px=self.image_px,
            patch=self.patch,
            width=self.width,
            encoder_depth=self.encoder_depth,
            encoder_heads=self.encoder_heads,
            layer_scale=self.layer_scale,
        )


RELEASED = Pi3Config()
"""The released checkpoints: encoder and decoder have 758 M parameters; Pi3 as a whole 959 M, Pi3X 1,360 M."""

TINY = Pi3Config(
    image_px=112,
    pixel_limit=96 * 128,
    width=32,
    encoder_depth=1,
    encoder_heads=2,
    depth=4,
    heads=2,
    layer_scale=0.5,
    head_width=32,
    head_depth=1,
    head_heads=2,
    camera_width=16,
    upsample=(16, 16, 16),
    output_channels=8,
    metric_width=16,
    metric_heads=2,
)
"""A small network that is never trained: it runs every code path in milliseconds (6 x 9 tokens of a 96 x 128 image)."""
