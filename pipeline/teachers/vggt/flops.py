"""Floating-point operations of a VGGT forward, in closed form (a multiplication and an addition count two).

Counted are matrix products, attention and convolutions, as torch.utils.flop_counter counts them; norms, activations, rotations
and resizing are left out (together under 1 % of the released size).
"""

from __future__ import annotations

from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.encoder import REGISTERS


def block_flops(tokens: int, width: int, sequences: int = 1) -> int:
    """Return one block's FLOPs on ``sequences`` sequences of ``tokens``: projections and MLP 24 n C^2, attention 4 n^2 C."""
    return sequences * (24 * tokens * width**2 + 4 * tokens**2 * width)


def aggregator_flops(config: VGGTConfig, views: int, rows: int, cols: int, layers: int | None = None) -> dict[str, int]:
    """Return the operations of one scene, by part. ``layers``: blocks of each kind that run (default all; the last wanted layer
    + 1).
    """
    depth, width, patches = config.depth if layers is None else layers, config.width, rows * cols
    inside, encoded = config.lead + patches, 1 + REGISTERS + patches
    return {
        "patches": 2 * views * patches * width * 3 * config.patch**2,
        "encoder": config.encoder_depth * block_flops(encoded, width, views),
        "frame blocks": depth * block_flops(inside, width, views),
        "global blocks": depth * block_flops(views * inside, width),
    }


def camera_flops(config: VGGTConfig, views: int) -> int:
    """Return the FLOPs of the camera head on one scene."""
    width = config.dim
    code = 2 * views * (9 * width + 3 * width**2)
    branch = 2 * views * (width * (width // 2) + (width // 2) * 9)
    return config.camera_iterations * (code + branch + config.camera_depth * block_flops(views, width))


def dense_flops(config: VGGTConfig, views: int, rows: int, cols: int, outputs: int) -> int:
    """Return the FLOPs of a dense head with ``outputs`` channels (depth 2, points 4) on all views of one scene."""
    features, channels, patches = config.dpt_features, config.dpt_channels, rows * cols
    coarse = ((rows + 1) // 2) * ((cols + 1) // 2)
    areas = (16 * patches, 4 * patches, patches, coarse)
    # A transposed convolution is counted per input pixel, a convolution per output pixel.
    resized = (patches * channels[0] ** 2 * 16, patches * channels[1] ** 2 * 4, 0, coarse * channels[3] ** 2 * 9)
    projected = sum(patches * config.dim * count for count in channels)
    reduced = sum(area * count * features * 9 for area, count in zip(areas, channels, strict=True))
    units = 2 * features**2 * 9
    fused = areas[3] * units + sum(2 * area * units for area in areas[:3])
    # Each fusion ends in a 1x1 convolution at the next finer size, the last at twice the finest.
    joined = (areas[2] + areas[1] + areas[0] + 4 * areas[0]) * features**2
    pixels = patches * (config.patch // config.output_stride) ** 2
    half = features // 2
    last = 4 * areas[0] * features * half * 9 + pixels * (half * config.dpt_inner * 9 + config.dpt_inner * outputs)
    return 2 * views * (projected + sum(resized) + reduced + fused + joined + last)


def forward_flops(config: VGGTConfig, views: int, rows: int, cols: int, *, predictions: bool = False) -> dict[str, int]:
    """Return a scene's FLOPs by part and in ``total`` (last layer; with camera and depth heads when ``predictions``)."""
    parts = aggregator_flops(config, views, rows, cols)
    if predictions:
        parts |= {"camera head": camera_flops(config, views), "depth head": dense_flops(config, views, rows, cols, 2)}
    return parts | {"total": sum(parts.values())}
