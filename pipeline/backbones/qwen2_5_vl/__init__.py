"""Qwen2.5-VL (Qwen/Qwen2.5-VL-3B-Instruct, -7B-Instruct, or a tiny model of the same class built here), image mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pipeline.backbones._transformers.chat import QWEN2_5_VL, ChatFormat
from pipeline.backbones._transformers.member import BackboneOptions, TransformersBackbone
from pipeline.backbones._transformers.releases import QWEN2_5_VL as RELEASED
from pipeline.core.options import Options

if TYPE_CHECKING:
    from pipeline.backbones._transformers.loaded import LoadedTransformersModel


class Qwen25VLOptions(BackboneOptions):
    """Options of Qwen2.5-VL."""

    tokens_per_view: tuple[int, int] | None = Field(
        None, description="Rows and columns of visual tokens per view; default 4x4 (tiny) or 14x14 (392 px, as 3DRS)."
    )


class Qwen25VL(TransformersBackbone):
    """Qwen2.5-VL."""

    options_model: ClassVar[type[Options]] = Qwen25VLOptions
    chat: ClassVar[ChatFormat] = QWEN2_5_VL
    releases = RELEASED
    options: Qwen25VLOptions

    def family(self) -> type[LoadedTransformersModel]:
        from pipeline.backbones.qwen2_5_vl.model import Qwen25VLBackbone

        return Qwen25VLBackbone

    def tokens(self) -> tuple[int, int] | None:
        return self.options.tokens_per_view
