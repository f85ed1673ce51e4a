"""Qwen2.5-VL (Qwen/Qwen2.5-VL-3B-Instruct, -7B-Instruct, or a tiny model of the same class built here), image mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pipeline.mllm.chat import QWEN2_5_VL, ChatFormat
from pipeline.mllm.member import BackboneOptions, TransformersMember
from pipeline.mllm.releases import QWEN2_5_VL as RELEASED
from pipeline.options import Options

if TYPE_CHECKING:
    from pipeline.mllm.loaded import TransformersBackbone


class Qwen25VLOptions(BackboneOptions):
    """Options of Qwen2.5-VL."""

    tokens_per_view: tuple[int, int] | None = Field(
        None, description="Rows and columns of visual tokens per view; default 4x4 (tiny) or 14x14 (392 px, as 3DRS)."
    )


class Qwen25VL(TransformersMember):
    """Qwen2.5-VL."""

    options_model: ClassVar[type[Options]] = Qwen25VLOptions
    chat: ClassVar[ChatFormat] = QWEN2_5_VL
    releases = RELEASED
    options: Qwen25VLOptions

    def family(self) -> type[TransformersBackbone]:
        from pipeline.mllm.qwen2_5_vl import Qwen25VLBackbone

        return Qwen25VLBackbone

    def tokens(self) -> tuple[int, int] | None:
        return self.options.tokens_per_view
