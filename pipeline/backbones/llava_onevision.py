"""LLaVA-OneVision (llava-hf/llava-onevision-qwen2-0.5b-ov-hf, -7b-ov-hf, or a tiny model of the same class), video mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipeline.mllm.chat import LLAVA_ONEVISION, ChatFormat
from pipeline.mllm.member import TransformersMember
from pipeline.mllm.releases import LLAVA_ONEVISION as RELEASED

if TYPE_CHECKING:
    from pipeline.mllm.loaded import TransformersBackbone


class LlavaOnevision(TransformersMember):
    """LLaVA-OneVision."""

    chat: ClassVar[ChatFormat] = LLAVA_ONEVISION
    releases = RELEASED

    def family(self) -> type[TransformersBackbone]:
        from pipeline.mllm.llava_onevision import LlavaOnevisionBackbone

        return LlavaOnevisionBackbone
