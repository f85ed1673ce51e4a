"""The dense heads of VGGT: depth or point maps with a confidence per pixel, from four aggregator layers.

Form: DPT (Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.teachers.vggt.config import HeadActivation, VGGTConfig


class PlaneCode(nn.Module):
    """Adds a sine and cosine code of the position in the image plane to maps (N,c,h,w), times 0.1.

    The code of each axis is computed once per size and device and kept (it is tiny): no copy to the device in later forwards.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[tuple[int, int, int, float, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor, aspect: float) -> Tensor:
        """Add the position code to maps. ``aspect`` is image width / height."""
        channels, height, width = x.shape[1:]
        key = (channels, height, width, aspect, x.device)
        if key not in self._tables:
            if len(self._tables) > 64:
                self._tables.clear()
            with torch.inference_mode(False):
                self._tables[key] = self._build(channels, height, width, aspect, x.device)
        along_x, along_y = self._tables[key]
        code = [along_x[:, None, :].expand(-1, height, width), along_y[:, :, None].expand(-1, height, width)]
        return x + 0.1 * torch.cat(code).to(x.dtype)

    def _build(self, channels: int, height: int, width: int, aspect: float, device: torch.device) -> tuple[Tensor, Tensor]:
        diagonal = (aspect**2 + 1) ** 0.5
        rates = 100.0 ** (-torch.arange(channels // 4, dtype=torch.float64, device="cpu") / (channels / 4))
        tables = []
        for span, count in ((aspect / diagonal, width), (1 / diagonal, height)):
            edge = span * (count - 1) / count
            angle = torch.linspace(-edge, edge, count, dtype=torch.float64, device="cpu")[:, None] * rates
            tables.append(torch.cat([angle.sin(), angle.cos()], dim=-1).T.float().to(device))
        return tables[0], tables[1]


class ResidualUnit(nn.Module):
    """Two convolutions with a skip. The skip carries ReLU(x), as in the network that the released weights come from."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return x + self.conv2(self.conv1(x).relu())


class Fusion(nn.Module):
    """Adds a finer layer to the coarser result and resizes to the next finer one."""

    def __init__(self, features: int, *, first: bool):
        super().__init__()
        if not first:
            self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)
        self.first = first

    def forward(self, coarse: Tensor, layer: Tensor | None, size: tuple[int, int]) -> Tensor:
        x = coarse if self.first or layer is None else coarse + self.resConfUnit1(layer)
        x = F.interpolate(self.resConfUnit2(x), size=size, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class Scratch(nn.Module):
    """The convolutional part of a dense head."""

    def __init__(self, channels: Sequence[int], features: int, inner: int, outputs: int):
        super().__init__()
        for number, count in enumerate(channels, start=1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(count, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{number}", Fusion(features, first=number == 4))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, inner, 3, padding=1), nn.ReLU(), nn.Conv2d(inner, outputs, 1)
        )


class DenseHead(nn.Module):
    """Kept layers {layer: (B,V,lead+P,2C)} -> values (B,V,H,W,c) and confidence (B,V,H,W) >= 1."""

    def __init__(self, config: VGGTConfig, outputs: int, activation: HeadActivation):
        super().__init__()
        self.config, self.activation = config, activation
        channels = config.dpt_channels
        self.norm = nn.LayerNorm(config.dim, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(config.dim, count, 1) for count in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(channels, config.dpt_features, config.dpt_inner, outputs)
        self.plane_code = PlaneCode()

    def forward(self, layers: dict[int, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        scenes, views = layers[self.config.dpt_layers[0]].shape[:2]
        aspect = size[1] / size[0]
        pyramid = [self._level(number, layers, size, aspect) for number in range(4)]
        x = self._fuse(pyramid)
        x = self.scratch.output_conv1(x)
        stride = self.config.output_stride
        rows, cols = size[0] // self.config.patch, size[1] // self.config.patch
        target = (rows * self.config.patch // stride, cols * self.config.patch // stride)
        x = F.interpolate(x, size=target, mode="bilinear", align_corners=True)
        x = self.scratch.output_conv2(self.plane_code(x, aspect))
        x = x.permute(0, 2, 3, 1).unflatten(0, (scenes, views))
        return self._activate(x[..., :-1]), 1 + x[..., -1].exp()

    def _level(self, number: int, layers: dict[int, Tensor], size: tuple[int, int], aspect: float) -> Tensor:
        rows, cols = size[0] // self.config.patch, size[1] // self.config.patch
        tokens = self.norm(layers[self.config.dpt_layers[number]][:, :, self.config.lead :])
        x = tokens.flatten(0, 1).transpose(1, 2).unflatten(2, (rows, cols))
        x = self.projects[number](x)
        x = self.resize_layers[number](self.plane_code(x, aspect))
        return getattr(self.scratch, f"layer{number + 1}_rn")(x)

    def _fuse(self, pyramid: list[Tensor]) -> Tensor:
        scratch: Any = self.scratch
        sizes = [(level.shape[-2], level.shape[-1]) for level in pyramid]
        x = scratch.refinenet4(pyramid[3], None, sizes[2])
        x = scratch.refinenet3(x, pyramid[2], sizes[1])
        x = scratch.refinenet2(x, pyramid[1], sizes[0])
        return scratch.refinenet1(x, pyramid[0], (2 * sizes[0][0], 2 * sizes[0][1]))

    def _activate(self, values: Tensor) -> Tensor:
        if self.activation == "exp":
            return values.exp()
        return values.sign() * values.abs().expm1()
