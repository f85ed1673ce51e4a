"""MAE (He et al., CVPR 2022, arXiv 2111.06377): the encoder of a masked autoencoder, with nothing masked.

By default images are squashed to the checkpoint's image_size (224 pixels: 14 x 14 tokens of patch 16). transformers' class
orders patches by random noise even when it hides none; here the noise is 0, 1, 2, ..., so tokens stay row-major.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.releases import Licence
from pipeline.teachers._vision2d import Vision2DTeacher


class MaeTeacher(Vision2DTeacher):
    """The class token is dropped; the decoder of a pretraining checkpoint is left out."""

    official = "facebook/vit-mae-large"
    released = Licence(
        code="Apache-2.0 (transformers)",
        weights="CC BY-NC 4.0 in the authors' repository facebookresearch/mae; the cards of facebook/vit-mae-* say Apache-2.0",
        commercial=False,
    )

    def model_types(self) -> Sequence[str]:
        return ("vit_mae",)
