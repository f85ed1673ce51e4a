"""DINOv2 (Oquab et al., TMLR 2024, arXiv 2304.07193), with or without registers (Darcet et al., ICLR 2024, arXiv 2309.16588).

One of the 2D teachers that 3DRS compares with. By default the aspect ratio is kept with the longer side at the checkpoint's
image_size: 518 pixels for the released ones, 392 x 518 or 28 x 37 tokens of a ScanNet frame (VGGT's grid); the paper's 16 x 16
tokens are ``resize: squash, image_px: 224``.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from pipeline.core.releases import Licence
from pipeline.teachers._vision2d import Vision2DOptions, Vision2DTeacher


class DinoV2Options(Vision2DOptions):
    """Also, whether the network has register tokens."""

    registers: bool | None = Field(
        None, description="Whether the network has register tokens. Default: as the checkpoint says; untrained: without."
    )


class DinoV2Teacher(Vision2DTeacher):
    """Class and register tokens (1, or 5 with registers) are dropped."""

    options_model = DinoV2Options
    official = "facebook/dinov2-with-registers-large"
    released = Licence(code="Apache-2.0 (transformers)", weights="Apache-2.0 (facebook/dinov2-*)", commercial=True)
    options: DinoV2Options

    def model_types(self) -> Sequence[str]:
        if self.options.registers is None:
            return ("dinov2", "dinov2_with_registers")
        return ("dinov2_with_registers",) if self.options.registers else ("dinov2",)
