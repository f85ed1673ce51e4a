"""LLaVA-OneVision (llava-hf/llava-onevision-qwen2-0.5b-ov-hf, -7b-ov-hf, or a tiny model of the same class), video mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipeline.backbones._transformers.chat import LLAVA_ONEVISION, ChatFormat
from pipeline.backbones._transformers.member import TransformersBackbone
from pipeline.backbones._transformers.releases import LLAVA_ONEVISION as RELEASED

if TYPE_CHECKING:
    from pipeline.backbones._transformers.loaded import LoadedTransformersModel


class LlavaOnevision(TransformersBackbone):
    """LLaVA-OneVision."""

    chat: ClassVar[ChatFormat] = LLAVA_ONEVISION
    releases = RELEASED

    def family(self) -> type[LoadedTransformersModel]:
        from pipeline.backbones.llava_onevision.model import LlavaOnevisionBackbone

        return LlavaOnevisionBackbone
