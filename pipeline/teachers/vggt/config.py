"""Sizes of the VGGT network (Wang et al., CVPR 2025, arXiv 2503.11651): the released 1B and the one trained on rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeadActivation = Literal["exp", "inv_log"]
ImageMode = Literal["crop", "pad"]


@dataclass(frozen=True, slots=True)
class VGGTConfig:
    """Widths and depths. ``image_px`` / ``patch`` is the side of the learned position grid, resized to the actual grid.

    ``layer_scale`` is only the initial value; a checkpoint overrides it. ``dpt_layers`` are the aggregator layers that the
    dense heads read. ``output_stride`` > 1 makes the dense heads predict every n-th pixel (rooms: less work on a CPU).
    ``images`` is how frames are fitted into the input (images.py).
    """

    image_px: int = 518
    patch: int = 14
    width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    depth: int = 24
    heads: int = 16
    registers: int = 4
    rope_base: float = 100.0
    layer_scale: float = 0.01
    camera_depth: int = 4
    camera_heads: int = 16
    camera_iterations: int = 4
    dpt_features: int = 256
    dpt_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    dpt_layers: tuple[int, int, int, int] = (4, 11, 17, 23)
    dpt_inner: int = 32
    output_stride: int = 1
    images: ImageMode = "crop"

    @property
    def dim(self) -> int:
        """Return the width of an aggregated token: concatenated frame and global features."""
        return 2 * self.width

    @property
    def lead(self) -> int:
        """Return the number of special tokens before the patches: one camera token and the registers."""
        return 1 + self.registers


RELEASED_1B = VGGTConfig()
"""The released checkpoint: 909 M of its 1,257 M parameters are the aggregator."""

ROOMS = VGGTConfig(
    image_px=128,
    patch=16,
    width=128,
    encoder_depth=2,
    encoder_heads=4,
    depth=2,
    heads=4,
    registers=2,
    layer_scale=0.5,
    camera_depth=1,
    camera_heads=4,
    camera_iterations=2,
    dpt_features=24,
    dpt_channels=(24, 24, 32, 32),
    dpt_layers=(0, 0, 1, 1),
    dpt_inner=8,
    output_stride=4,
)
"""Small enough to train inside the workflow in about two minutes on one CPU thread.

Patches of 16 pixels (6 x 8 tokens of a 96 x 128 image): patches of 8 cost five times as much per image, so that a tiny budget
sees five times fewer rooms; the tiny students look at 4 x 4 tokens anyway.
"""
