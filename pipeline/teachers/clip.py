"""CLIP's image tower (Radford et al., ICML 2021, arXiv 2103.00020).

By default images are squashed to the checkpoint's image_size (336 pixels: 24 x 24 tokens of patch 14). Patch tokens are taken
without the final LayerNorm, which CLIP trains on the class token alone; ``norm: true`` applies it anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from pipeline.core.releases import Licence
from pipeline.teachers._vision2d import Vision2DOptions, Vision2DTeacher


class ClipOptions(Vision2DOptions):
    """Options of every 2D teacher, with another default of ``norm``."""

    norm: bool = Field(False, description="Apply the final LayerNorm, which CLIP itself applies to the class token only.")


class ClipTeacher(Vision2DTeacher):
    """The class token is dropped; the text tower of a whole checkpoint is left out."""

    options_model = ClipOptions
    official = "openai/clip-vit-large-patch14-336"
    released = Licence(
        code="Apache-2.0 (transformers)",
        weights="MIT (openai/CLIP); the model card says that any deployed use is out of scope",
        commercial=True,
    )
    options: ClipOptions

    def model_types(self) -> Sequence[str]:
        return ("clip_vision_model",)
