"""Token features of a frozen vision network: wanted blocks only, special tokens dropped, every view separately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.hf_folder import checked_layers
from pipeline.scenes.types import Scene
from pipeline.teachers._common.resize import InputRule
from pipeline.teachers._common.views import PreparedViews, ViewInput, begin_copy, side_by_side
from pipeline.teachers._vision2d.checkpoint import Vision
from pipeline.teachers.base import TeacherFeatures


class VisionFeatures:
    """A network on a device.

    ``layers`` are block outputs, side by side on channels in the given order (-1 is the last block); blocks behind the deepest
    of them are dropped. ``norm`` applies the network's final LayerNorm to every one of them, as DINOv2 does for intermediate
    layers. ``side_by_side`` concatenates them.
    """

    def __init__(
        self,
        model: nn.Module,
        vision: Vision,
        rule: InputRule,
        layers: Sequence[int],
        *,
        norm: bool,
        device: str,
        bfloat16: bool,
        views_per_pass: int,
    ):
        self.vision, self.bfloat16, self.views_per_pass = vision, bfloat16, views_per_pass
        self.layers = checked_layers(layers, vision.depth)
        self.input = ViewInput(rule, vision.resampling, vision.pixels, device)
        blocks: Any = model.get_submodule(vision.layout.blocks)
        del blocks[max(self.layers) + 1 :]
        self.model = model.to(device).eval().requires_grad_(False)
        self.norm = model.get_submodule(vision.layout.norm) if norm else nn.Identity()
        self._kept: dict[int, Tensor] = {}
        for layer in self.layers:
            blocks[layer].register_forward_hook(self._keeper(layer))

    def _keeper(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._kept[layer] = output if isinstance(output, Tensor) else output[0]

        return keep

    def prepare(self, scene: Scene) -> PreparedViews:
        """Resize all views."""
        return self.input.prepare(scene.rgb)

    @torch.inference_mode()
    def start(self, prepared: PreparedViews) -> Callable[[], TeacherFeatures]:
        """Queue the work of a scene; the returned function waits for the features of all views, in order."""
        size = (prepared.grid.rows, prepared.grid.cols)
        passes = [self._tokens(part, size) for part in self.input.to_device(prepared).split(self.views_per_pass)]
        ready = begin_copy(torch.cat(passes).unflatten(1, size))
        return lambda: TeacherFeatures(ready(), prepared.grid)

    def _tokens(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Compute tokens float32 (v, rows*cols, D) from pixels (v,3,h,w)."""
        try:
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bfloat16):
                self.vision.layout.call(self.model, pixels, grid)
                parts = [self.norm(self._kept[layer])[:, self.vision.lead :].float() for layer in self.layers]
        finally:
            self._kept.clear()  # also when memory runs out: what is kept would be missing in the next try
        return side_by_side(parts)
