"""InternVL (the ``-hf`` layout): own vision tower, pixel shuffle by 2, two-layer projector; one tile per view."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pipeline.backbones._transformers import images
from pipeline.backbones._transformers.chat import INTERNVL
from pipeline.backbones._transformers.initial import start_attention, start_positions
from pipeline.backbones._transformers.loaded import LoadedTransformersModel, tiny_text_config
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.backbones.base import Prefix
from pipeline.scenes.grid import TokenGrid


class InternVLBackbone(LoadedTransformersModel):
    """InternVL with one tile per view."""

    chat = INTERNVL
    normalisation = images.IMAGENET
    model_class: ClassVar[type[PreTrainedModel]] = InternVLForConditionalGeneration

    @classmethod
    def tiny_config(cls, tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, int] | None) -> PreTrainedConfig:
        side = (tokens or (4, 4))[0]
        text = tiny_text_config(tokenizer) | {
            "model_type": "qwen2",
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        }
        vision = {
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "attention_bias": True,
            "image_size": [24 * side, 24 * side],
            "patch_size": [12, 12],
            "layer_scale_init_value": 1.0,
            "initializer_range": 0.05,
        }
        return InternVLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=token_id(tokenizer, "<IMG_CONTEXT>"),
            image_seq_length=side * side,
            downsample_ratio=0.5,
            tie_word_embeddings=True,
        )

    @classmethod
    def start_tiny(cls, model: PreTrainedModel) -> None:
        super().start_tiny(model)
        tower: Any = model.model.vision_tower
        rows, cols = (size // patch for size, patch in zip(tower.config.image_size, tower.config.patch_size, strict=True))
        start_positions(tower.embeddings.position_embeddings, rows, cols)
        start_attention(layer.attention for layer in tower.encoder.layer)

    @classmethod
    def default_tokens(cls, config: PreTrainedConfig) -> tuple[int, int]:
        vision = config.vision_config
        rows, cols = (
            int(size // patch * config.downsample_ratio)
            for size, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return rows, cols

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.model.config.vision_config.image_size
        return height, width

    def view_grid(self, height_px: int, width_px: int) -> TokenGrid:
        return TokenGrid(*self.tokens)

    def encode_views(self, pixels: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
        scenes, views = pixels.shape[:2]
        output = self.model.model.get_image_features(pixels.flatten(0, 1), return_dict=True)
        return output.pooler_output.reshape(scenes, views * self.tokens[0] * self.tokens[1], -1)

    def native_inputs(self, prefix: Prefix, pixels: torch.Tensor, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "input_ids": input_ids[None],
            "attention_mask": torch.ones_like(input_ids)[None],
            "pixel_values": pixels,
        }

    def vision_parameters(self) -> list[torch.nn.Parameter]:
        return list(self.model.model.vision_tower.parameters())
