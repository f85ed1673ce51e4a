"""InternVL (OpenGVLab/InternVL3-1B-hf, -2B-hf, -8B-hf, or a tiny model of the same class), one tile per view."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipeline.backbones._transformers.chat import INTERNVL, ChatFormat
from pipeline.backbones._transformers.member import TransformersBackbone
from pipeline.backbones._transformers.releases import INTERNVL as RELEASED

if TYPE_CHECKING:
    from pipeline.backbones._transformers.loaded import LoadedTransformersModel


class InternVL(TransformersBackbone):
    """InternVL."""

    chat: ClassVar[ChatFormat] = INTERNVL
    releases = RELEASED

    def family(self) -> type[LoadedTransformersModel]:
        from pipeline.backbones.internvl.model import InternVLBackbone

        return InternVLBackbone
