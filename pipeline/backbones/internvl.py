"""InternVL (OpenGVLab/InternVL3-1B-hf, -2B-hf, -8B-hf, or a tiny model of the same class), one tile per view."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipeline.mllm.chat import INTERNVL, ChatFormat
from pipeline.mllm.member import TransformersMember
from pipeline.mllm.releases import INTERNVL as RELEASED

if TYPE_CHECKING:
    from pipeline.mllm.loaded import TransformersBackbone


class InternVL(TransformersMember):
    """InternVL."""

    chat: ClassVar[ChatFormat] = INTERNVL
    releases = RELEASED

    def family(self) -> type[TransformersBackbone]:
        from pipeline.mllm.internvl import InternVLBackbone

        return InternVLBackbone
