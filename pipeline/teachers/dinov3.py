"""DINOv3 (Simeoni et al., 2025, arXiv 2508.10104), the vision transformers (not the ConvNeXt variants).

By default the aspect ratio is kept with the longer side at 512 pixels: 384 x 512 or 24 x 32 tokens of a ScanNet frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.releases import Licence
from pipeline.teachers._vision2d import Vision2DTeacher


class DinoV3Teacher(Vision2DTeacher):
    """The class token and the registers (4 in the released models) are dropped."""

    official = "facebook/dinov3-vitl16-pretrain-lvd1689m"
    released = Licence(
        code="Apache-2.0 (transformers)",
        weights="DINOv3 License of Meta (facebook/dinov3-*, gated; read its terms on use and redistribution)",
        commercial=True,
    )

    def model_types(self) -> Sequence[str]:
        return ("dinov3_vit",)
