"""SigLIP 2 (Tschannen et al., 2025, arXiv 2502.14786): fixed-resolution checkpoints and NaFlex ones; SigLIP ones load as well.

Fixed checkpoints (``SiglipVisionModel``) see a square of their image_size by default (384 pixels, patch 14: 27 x 27 tokens of
378 pixels); NaFlex ones keep the aspect ratio with the longer side at 512 pixels (24 x 32 tokens of a ScanNet frame; the
models were trained with up to 1024 tokens). There are no special tokens; the pooling head is not built.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from pipeline.core.releases import Licence
from pipeline.teachers._vision2d import Vision2DOptions, Vision2DTeacher


class Siglip2Options(Vision2DOptions):
    """Also, which of the two kinds of checkpoint."""

    naflex: bool | None = Field(
        None, description="Whether the network takes native aspect ratios. Default: as the checkpoint says; untrained: it does."
    )


class Siglip2Teacher(Vision2DTeacher):
    """The image tower alone; the text tower of a whole checkpoint is left out."""

    options_model = Siglip2Options
    official = "google/siglip2-so400m-patch16-naflex"
    released = Licence(code="Apache-2.0 (transformers)", weights="Apache-2.0 (google/siglip2-*)", commercial=True)
    options: Siglip2Options

    def model_types(self) -> Sequence[str]:
        if self.options.naflex is None:
            return ("siglip2_vision_model", "siglip_vision_model")
        return ("siglip2_vision_model",) if self.options.naflex else ("siglip_vision_model",)
