"""A frozen vision network as a source of token features: wanted blocks only, special tokens dropped, every view by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.nets.resize import InputRule, to_pixels
from pipeline.nets.vision2d.checkpoint import Vision
from pipeline.scene import Scene
from pipeline.teachers.base import TeacherFeatures


class VisionFeatures:
    """A network on a device.

    ``layers`` are block outputs, side by side on channels in the given order (-1 is the last block); blocks behind the deepest
    of them are dropped. ``norm`` applies the network's final LayerNorm to every one of them, as DINOv2 does for intermediate
    layers. With more than one layer each is scaled to mean square 1 per token, so that none dominates a cosine.
    """

    def __init__(
        self, model: nn.Module, vision: Vision, rule: InputRule, layers: Sequence[int],
        *, norm: bool, device: str, bfloat16: bool, views_per_pass: int,
    ):  # fmt: skip
        self.vision, self.rule = vision, rule
        self.layers = [layer % vision.depth for layer in checked_layers(layers, vision.depth)]
        self.device, self.bfloat16, self.views_per_pass = device, bfloat16, views_per_pass
        blocks: Any = model.get_submodule(vision.layout.blocks)
        del blocks[max(self.layers) + 1 :]
        self.model = model.to(device).eval().requires_grad_(False)
        self.norm = model.get_submodule(vision.layout.norm) if norm else nn.Identity()
        self._kept: dict[int, Tensor] = {}
        for layer in set(self.layers):
            blocks[layer].register_forward_hook(self._keeper(layer))

    def _keeper(self, layer: int) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._kept[layer] = output if isinstance(output, Tensor) else output[0]

        return keep

    @torch.inference_mode()
    def encode(self, scene: Scene) -> TeacherFeatures:
        """Features of all views, in order."""
        size, grid = self.rule.input_size(*scene.rgb.shape[1:3]), self.rule.grid(*scene.rgb.shape[1:3])
        pixels = torch.from_numpy(to_pixels(scene.rgb, size, self.vision.resampling, *self.vision.pixels))
        passes = [self._tokens(part, (grid.rows, grid.cols)) for part in pixels.split(self.views_per_pass)]
        tokens = torch.cat(passes).unflatten(1, (grid.rows, grid.cols))
        return TeacherFeatures(tokens.cpu().numpy(), grid)

    def _tokens(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pixels (v,3,h,w) -> tokens float32 (v, rows*cols, D)."""
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
            self.vision.layout.call(self.model, pixels.to(self.device), grid)
            parts = [self.norm(self._kept[layer])[:, self.vision.lead :].float() for layer in self.layers]
        self._kept.clear()
        return parts[0] if len(parts) == 1 else torch.cat([_unit_square(part) for part in parts], dim=-1)


def _unit_square(part: Tensor) -> Tensor:
    return part / part.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


def checked_layers(layers: Sequence[int], depth: int) -> Sequence[int]:
    """``layers`` as they are; ConfigError for one that a network of ``depth`` blocks does not have."""
    for layer in layers:
        if not -depth <= layer < depth:
            raise ConfigError(f"the network has no block {layer}", allowed=f"{-depth} to {depth - 1}")
    return layers
