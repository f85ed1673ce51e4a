"""Qwen2.5-VL in image mode: every view is an image, M-RoPE positions (t, h, w) per token.

One visual token covers a merge block of 2x2 patches; the views of a batch are packed into one patch sequence as the class
wants it. Its attention without flash kernels loops over images; when all windows are whole images of one size, the same
attention is done as one batch through the attention registry of `transformers` (equal to the loop: conformance suite).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AttentionInterface,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from pipeline.backbones._transformers import images
from pipeline.backbones._transformers.chat import QWEN2_5_VL
from pipeline.backbones._transformers.loaded import LoadedTransformersModel, tiny_text_config
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.backbones.base import Prefix
from pipeline.scenes.grid import TokenGrid

SEGMENTS = "sdpa_equal_segments"


def equal_segments_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segment: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Run SDPA on a packed sequence (1,heads,n*segment,d) as a batch of n segments; plain SDPA when ``segment`` is 0."""
    if not segment:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    heads, total, width = query.shape[1:]
    q, k, v = (t.reshape(heads, total // segment, segment, width).transpose(0, 1) for t in (query, key, value))
    output, _ = sdpa_attention_forward(module, q, k, v, attention_mask, **kwargs)
    return output.reshape(1, total, heads, width), None


AttentionInterface.register(SEGMENTS, equal_segments_attention)


class Qwen25VLBackbone(LoadedTransformersModel):
    """Qwen2.5-VL, image mode."""

    chat = QWEN2_5_VL
    normalisation = images.CLIP
    model_class: ClassVar[type[PreTrainedModel]] = Qwen2_5_VLForConditionalGeneration

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, int] | None):
        super().__init__(model, tokenizer, tokens)
        self._vision = model.config.vision_config
        self._packing: dict[int, dict[str, Any]] = {}
        if self._vision._attn_implementation == "sdpa":
            self._vision._attn_implementation = SEGMENTS

    @classmethod
    def tiny_config(cls, tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, int] | None) -> PreTrainedConfig:
        rows, cols = tokens or (4, 4)
        ids: dict[str, Any] = {
            f"{name}_token_id": token_id(tokenizer, token)
            for name, token in (
                ("image", "<|image_pad|>"),
                ("video", "<|video_pad|>"),
                ("vision_start", "<|vision_start|>"),
                ("vision_end", "<|vision_end|>"),
            )
        }
        text = tiny_text_config(tokenizer) | {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
        }
        vision = {
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 3,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 16 * max(rows, cols),
            "fullatt_block_indexes": [1],
            "out_hidden_size": text["hidden_size"],
            "initializer_range": 0.05,
        }
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)

    @classmethod
    def default_tokens(cls, config: PreTrainedConfig) -> tuple[int, int]:
        """Return 14x14 for released sizes (392 px of 28 px tokens, like 3DRS's 14x14), 4x4 for tiny ones."""
        return (14, 14) if config.vision_config.patch_size == 14 else (4, 4)

    @property
    def image_size(self) -> tuple[int, int]:
        side = self._vision.patch_size * self._vision.spatial_merge_size
        return self.tokens[0] * side, self.tokens[1] * side

    def view_grid(self, height_px: int, width_px: int) -> TokenGrid:
        return TokenGrid(*self.tokens)

    def positions(self, input_ids: NDArray[np.int64], visual_index: NDArray[np.int64], views: int) -> NDArray[np.int64]:
        """Return M-RoPE positions: text counts on all three axes; a view's tokens share t and take h, w of their cell; the
        text after a view continues at the largest position plus one.
        """
        rows, cols = self.tokens
        positions = np.empty((3, len(input_ids)), dtype=np.int64)
        place = np.arange(rows * cols)
        done, following = 0, 0
        for start in visual_index.reshape(views, -1)[:, 0]:
            positions[:, done:start] = following + np.arange(start - done)
            following += start - done
            positions[:, start : start + rows * cols] = following + np.stack([place * 0, place // cols, place % cols])
            following += max(rows, cols)
            done = start + rows * cols
        positions[:, done:] = following + np.arange(len(input_ids) - done)
        return positions

    def decoder_positions(self, positions: torch.Tensor) -> torch.Tensor:
        return positions

    def _grid_thw(self, count: int, device: torch.device) -> torch.Tensor:
        merge = self._vision.spatial_merge_size
        return torch.tensor([[1, self.tokens[0] * merge, self.tokens[1] * merge]], device=device).expand(count, 3)

    def _packed(self, count: int, device: torch.device) -> dict[str, Any]:
        """Return vision-tower arguments that depend on the number of views only, computed once by the class's helpers."""
        if count not in self._packing:
            vision, grid = self._vision, self._grid_thw(count, device)
            window, windows = get_vision_window_index(grid, vision.spatial_merge_size, vision.window_size, vision.patch_size)
            lengths = get_vision_cu_seqlens(grid)
            packed: dict[str, Any] = {
                "position_ids": get_vision_position_ids(grid, vision.spatial_merge_size),
                "window_index": window.to(device),
                "cu_window_seqlens": windows,
                "cu_seqlens": lengths,
            }
            whole = vision._attn_implementation == SEGMENTS and torch.equal(windows, lengths.to(windows.dtype))
            if whole and count > 1:
                one = torch.tensor([0, int(lengths[-1])], dtype=windows.dtype, device=device)
                packed |= {"cu_window_seqlens": one, "cu_seqlens": one, "segment": int(lengths[1])}
            if len(self._packing) >= 16:
                self._packing.clear()
            self._packing[count] = packed
        return self._packing[count]

    def encode_views(self, pixels: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
        scenes, views = pixels.shape[:2]
        count = scenes * views
        vision = self._vision
        rows = images.patchify(pixels.flatten(0, 1), vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        tower = self.model.model.visual
        grid = self._grid_thw(count, pixels.device)
        output = tower(rows.to(tower.dtype), grid_thw=grid, **self._packed(count, pixels.device))
        return output.pooler_output.reshape(scenes, views * self.tokens[0] * self.tokens[1], -1)

    def native_inputs(self, prefix: Prefix, pixels: torch.Tensor, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        vision = self._vision
        types = (input_ids == self._visual_id).int()
        if int(types.sum()) != len(prefix.visual_index):
            # Without matching token types Qwen2.5-VL silently falls back to 1-D positions.
            raise ValueError("mm_token_type_ids do not mark exactly the prefix's visual tokens")
        return {
            "input_ids": input_ids[None],
            "mm_token_type_ids": types[None],
            "attention_mask": torch.ones_like(input_ids)[None],
            "pixel_values": images.patchify(pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size),
            "image_grid_thw": self._grid_thw(len(pixels), pixels.device),
        }

    def vision_parameters(self) -> list[torch.nn.Parameter]:
        visual = self.model.model.visual
        return [p for name, p in visual.named_parameters() if not name.startswith("merger.")]
