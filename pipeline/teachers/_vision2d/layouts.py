"""Differences between the vision transformers in `transformers`: classes, module paths, special tokens, pixels.

Special tokens and grids: tried on transformers 5.23 (DINOv2 1 leading token, with registers 5, DINOv3 1 + registers, CLIP and
MAE 1, SigLIP none). Means, deviations and filters are the values in the model cards' preprocessor_config.json (facebook/
dinov2-large, facebook/dinov3-vitl16-pretrain-lvd1689m, google/siglip2-so400m-patch14-384 and -patch16-naflex,
openai/clip-vit-large-patch14-336, facebook/vit-mae-base); a checkpoint folder that has this file overrides them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.teachers._common.resize import HALF, IMAGENET, Channels, Filter, Sizing

Call = Callable[[Any, Tensor, tuple[int, int]], Any]
"""``call(model, pixels (v,3,h,w), (rows, cols))`` runs the network; its return value is not used, blocks are hooked."""

CLIP_PIXELS: tuple[Channels, Channels] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
TINY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
"""The size ``tiny_untrained``: wide enough for a rotary table, small enough for a test."""


@dataclass(frozen=True)
class Layout:
    """One architecture.

    ``model_type`` is the name in config.json; ``outer`` that of checkpoints which hold the network as ``vision_config`` beside
    others. ``blocks`` and ``norm`` are module paths; ``foreign`` are prefixes of entries that belong to other parts of such a
    checkpoint. ``changed`` are configuration values that are always set: nothing is hidden (MAE), nothing is pooled (SigLIP).
    ``size_px`` None means the size in the configuration.
    """

    model_type: str
    model_class: str
    config_class: str
    blocks: str
    norm: str
    call: Call
    pixels: tuple[Channels, Channels]
    resampling: Filter
    sizing: Sizing
    size_px: int | None
    outer: str | None = None
    cls_tokens: int = 1
    foreign: tuple[str, ...] = ()
    changed: dict[str, Any] = field(default_factory=dict)
    tiny: dict[str, Any] = field(default_factory=dict)
    tiny_px: int = 112

    def lead(self, config: Any) -> int:
        """Return the number of tokens before the first patch: class token and registers."""
        return self.cls_tokens + int(getattr(config, "num_register_tokens", 0))


def _plain(model: Any, pixels: Tensor, _grid: tuple[int, int]) -> Any:
    """Run a network that fits its position code to any input by itself."""
    return model(pixel_values=pixels)


def _interpolated(model: Any, pixels: Tensor, _grid: tuple[int, int]) -> Any:
    """Run a network that must be asked to resize its position table; at the native size the table is used unchanged."""
    return model(pixel_values=pixels, interpolate_pos_encoding=True)


def _unmasked(model: Any, pixels: Tensor, grid: tuple[int, int]) -> Any:
    """Run MAE without masking. It orders patches by random noise even when it hides none: rising noise keeps them row-major."""
    noise = torch.arange(grid[0] * grid[1], device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)
    return model(pixel_values=pixels, noise=noise, interpolate_pos_encoding=True)


def _patches(model: Any, pixels: Tensor, grid: tuple[int, int]) -> Any:
    """Run NaFlex on patches (v, rows*cols, p*p*3), inside a patch row, column, channel. No padding, hence no mask; the shapes
    stay on the CPU because the network reads them as numbers.
    """
    views, channels, height, width = pixels.shape
    (rows, cols), patch_h, patch_w = grid, height // grid[0], width // grid[1]
    cut = pixels.reshape(views, channels, rows, patch_h, cols, patch_w).permute(0, 2, 4, 3, 5, 1)
    return model(
        pixel_values=cut.reshape(views, rows * cols, patch_h * patch_w * channels),
        pixel_attention_mask=None,
        spatial_shapes=torch.tensor([grid] * views),
    )


_TEXT = ("text_model.", "logit_scale", "logit_bias", "text_projection.", "visual_projection.")

LAYOUTS: dict[str, Layout] = {
    layout.model_type: layout
    for layout in (
        Layout(
            "dinov2", "Dinov2Model", "Dinov2Config", "encoder.layer", "layernorm", _plain,
            IMAGENET, "bicubic", "long_side", None, foreign=("classifier.",),
            tiny={**TINY, "patch_size": 14, "image_size": 56},
        ),
        Layout(
            "dinov2_with_registers", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", "encoder.layer", "layernorm",
            _plain, IMAGENET, "bicubic", "long_side", None, foreign=("classifier.",),
            tiny={**TINY, "patch_size": 14, "image_size": 56},
        ),
        Layout(
            "dinov3_vit", "DINOv3ViTModel", "DINOv3ViTConfig", "model.layer", "norm", _plain,
            IMAGENET, "bilinear", "long_side", 512,
            tiny={**TINY, "intermediate_size": 64, "patch_size": 16, "image_size": 64, "num_register_tokens": 4}, tiny_px=128,
        ),
        Layout(
            "siglip_vision_model", "SiglipVisionModel", "SiglipVisionConfig", "encoder.layers", "post_layernorm",
            _interpolated, HALF, "bilinear", "squash", None, outer="siglip", cls_tokens=0, foreign=_TEXT,
            changed={"vision_use_head": False},
            tiny={**TINY, "intermediate_size": 64, "patch_size": 14, "image_size": 56},
        ),
        Layout(
            "siglip2_vision_model", "Siglip2VisionModel", "Siglip2VisionConfig", "encoder.layers", "post_layernorm",
            _patches, HALF, "bilinear", "long_side", 512, outer="siglip2", cls_tokens=0, foreign=_TEXT,
            changed={"vision_use_head": False},
            tiny={**TINY, "intermediate_size": 64, "patch_size": 16, "num_patches": 16}, tiny_px=128,
        ),
        Layout(
            "clip_vision_model", "CLIPVisionModel", "CLIPVisionConfig", "encoder.layers", "post_layernorm",
            _interpolated, CLIP_PIXELS, "bicubic", "squash", None, outer="clip", foreign=_TEXT,
            tiny={**TINY, "intermediate_size": 64, "patch_size": 14, "image_size": 56},
        ),
        Layout(
            "vit_mae", "ViTMAEModel", "ViTMAEConfig", "layers", "layernorm", _unmasked,
            IMAGENET, "bilinear", "squash", None, foreign=("decoder.",), changed={"mask_ratio": 0.0},
            tiny={**TINY, "intermediate_size": 64, "patch_size": 16, "image_size": 64}, tiny_px=128,
        ),
    )
}  # fmt: skip
