"""LLaVA-OneVision in video mode: SigLIP tower, two-layer projector, bilinear pooling by 2, one learned newline at the end.

Cells: the tower's valid convolution leaves ``image_size mod patch_size`` pixels at the right and bottom unseen
(384 = 27 x 14 + 6), and pooling 27 -> 14 samples at (i + .5) * 27 / 14 patches, the centres of 14 equal cells of the
seen window.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pipeline.backbones._transformers import images
from pipeline.backbones._transformers.chat import LLAVA_ONEVISION
from pipeline.backbones._transformers.initial import start_attention, start_positions
from pipeline.backbones._transformers.loaded import LoadedTransformersModel, tiny_text_config
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.backbones.base import Prefix
from pipeline.scenes.grid import TokenGrid


class LlavaOnevisionBackbone(LoadedTransformersModel):
    """LLaVA-OneVision, video mode."""

    chat = LLAVA_ONEVISION
    normalisation = images.SIGLIP
    model_class: ClassVar[type[PreTrainedModel]] = LlavaOnevisionForConditionalGeneration

    @classmethod
    def tiny_config(cls, tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, int] | None) -> PreTrainedConfig:
        side = (tokens or (4, 4))[0]
        text = tiny_text_config(tokenizer) | {
            "model_type": "qwen2",
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        }
        vision = {
            "model_type": "siglip_vision_model",
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 24 * side,
            "patch_size": 12,
            "vision_use_head": False,
        }
        return LlavaOnevisionConfig(
            text_config=text,
            vision_config=vision,
            image_token_index=token_id(tokenizer, "<image>"),
            video_token_index=token_id(tokenizer, "<video>"),
            image_grid_pinpoints=[[24 * side, 24 * side]],
            tie_word_embeddings=True,
        )

    @classmethod
    def start_tiny(cls, model: PreTrainedModel) -> None:
        super().start_tiny(model)
        tower: Any = model.model.vision_tower
        side = tower.config.image_size // tower.config.patch_size
        start_positions(tower.embeddings.position_embedding.weight, side, side)
        start_attention(layer.self_attn for layer in tower.encoder.layers)

    @classmethod
    def default_tokens(cls, config: PreTrainedConfig) -> tuple[int, int]:
        side = math.ceil(config.vision_config.image_size // config.vision_config.patch_size / 2)
        return side, side

    @property
    def image_size(self) -> tuple[int, int]:
        side = self.model.config.vision_config.image_size
        return side, side

    def view_grid(self, height_px: int, width_px: int) -> TokenGrid:
        vision = self.model.config.vision_config
        seen = vision.image_size // vision.patch_size * vision.patch_size / vision.image_size
        return TokenGrid(*self.tokens, window=(0.0, 0.0, seen, seen))

    def encode_views(self, pixels: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
        output = self.model.model.get_video_features(pixels.to(self.model.dtype), return_dict=True)
        return output.pooler_output[:, :-1]

    def insert_extra(self, embeds: torch.Tensor, prefix: Prefix) -> torch.Tensor:
        """Insert the learned newline after the last view."""
        if prefix.extra_index is None:
            return embeds
        places = torch.from_numpy(prefix.extra_index).to(embeds.device)
        newline = self.model.model.image_newline.to(embeds.dtype).expand(len(embeds), len(places), -1)
        return embeds.index_copy(1, places, newline)

    def native_inputs(self, prefix: Prefix, pixels: torch.Tensor, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "input_ids": input_ids[None],
            "attention_mask": torch.ones_like(input_ids)[None],
            "pixel_values_videos": pixels[None],
        }

    def vision_parameters(self) -> list[torch.nn.Parameter]:
        return list(self.model.model.vision_tower.parameters())
