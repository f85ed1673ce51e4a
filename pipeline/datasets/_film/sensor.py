"""A colour camera and a depth camera: exposure, noise, JPEG; depth noise that grows as z^2, holes where sensors have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._film.render import Rendering
from pipeline.scenes.conventions import DEPTH_UNIT_PER_M

RANGE_M = (0.30, 8.0)
NOISE_M = 0.0014
"""Standard deviation of depth at 1 m; it grows with the square of the distance."""
GRAZING = 0.12
"""Cosine between ray and normal below which there is no depth."""
EDGE_SHARE = 0.7
"""Share of the pixels on depth edges that have no depth."""


def colour_images(rendering: Rendering, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 (V,H,W,3): exposure and white balance per view, noise per pixel."""
    views = len(rendering.rgb)
    gain = rng.uniform(0.92, 1.10, (views, 1, 1, 1)) * rng.uniform(0.98, 1.02, (views, 1, 1, 3)) * 255
    image = rng.standard_normal(rendering.rgb.shape, dtype=np.float32)
    image *= np.float32(2.0)
    image += rendering.rgb * gain.astype(np.float32)
    return np.asarray(np.clip(image + np.float32(0.5), 0, 255), dtype=np.uint8)


def depth_images(rendering: Rendering, rng: np.random.Generator) -> NDArray[np.uint16]:
    """uint16 millimetres (V,H,W), 0 = invalid: glass, grazing angles, edges of silhouettes, out of range, random blobs."""
    z = rendering.depth_m
    noisy = z + NOISE_M * z**2 * rng.standard_normal(z.shape, dtype=np.float32)
    bad = rendering.glass | (rendering.facing < GRAZING) | (z < RANGE_M[0]) | (z > RANGE_M[1])
    bad |= _edges(z) & (rng.random(z.shape, dtype=np.float32) < EDGE_SHARE)
    bad |= rng.random(z.shape, dtype=np.float32) < 0.002
    for view in range(len(z)):
        for _ in range(int(rng.integers(0, 4))):
            bad[view] |= _blob(z.shape[1:], rng)
    return np.where(bad, 0, np.clip(np.rint(noisy * DEPTH_UNIT_PER_M), 1, 65535)).astype(np.uint16)


def exact_depth_images(rendering: Rendering) -> NDArray[np.uint16]:
    """uint16 millimetres (V,H,W) without noise; 0 where a ray hits nothing or light comes through glass."""
    z = np.where(rendering.glass, 0, rendering.depth_m)
    return np.clip(np.rint(z * DEPTH_UNIT_PER_M), 0, 65535).astype(np.uint16)


def _edges(z: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels beside a depth jump of more than 5 % (both sides of it)."""
    edge = np.zeros(z.shape, dtype=bool)
    for axis in (1, 2):
        first = (slice(None),) * axis + (slice(None, -1),)
        second = (slice(None),) * axis + (slice(1, None),)
        jump = np.abs(z[first] - z[second]) > 0.05 * np.minimum(z[first], z[second])
        edge[first] |= jump
        edge[second] |= jump
    return edge


def _blob(size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """An ellipse without depth, up to 4 % of the image wide."""
    height, width = size
    v, u = rng.uniform(0, height), rng.uniform(0, width)
    a, b = rng.uniform(0.01, 0.04, 2) * width
    rows, cols = np.ogrid[:height, :width]
    blob: NDArray[np.bool_] = ((rows - v) / b) ** 2 + ((cols - u) / a) ** 2 < 1
    return blob
