"""World-position encoding against the reference code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_data import cases, read_tensors

from pipeline.training.positions import WorldPositions, discretise

CASES = cases("posenc/public/case_*.safetensors")


def coordinates(meta: dict[str, str]) -> np.ndarray:
    """The golden input (V,384,384,3) from the integer formula of its metadata."""
    scale, seed = int(meta["scale"]), int(meta["seed"])
    v, y, x = np.meshgrid(np.arange(int(meta["views"])), np.arange(384), np.arange(384), indexing="ij")
    factors = np.array([1.0037, 0.9971, 0.4013], dtype=np.float32)
    channels = []
    for c in range(3):
        raw = x * (5 + 2 * c) + y * (3 + c) * (-1) ** c + ((x // 9) * (y // 7)) % 53 + 997 * v + seed * (37 + c)
        q = raw % (4000 // scale) - 2000 // scale
        channels.append(q.astype(np.float32) / np.float32(100) * factors[c])
    return np.stack(channels, -1)


@pytest.mark.parametrize("case", CASES)
def test_discrete_sin3d_equals_the_reference(case: Path) -> None:
    tensors, meta = read_tensors(case)
    pixels = coordinates(meta)[:, :378, :378]
    views = len(pixels)
    means = pixels.reshape(views, 14, 27, 14, 27, 3).mean((2, 4), dtype=np.float64).astype(np.float32)
    np.testing.assert_allclose(means, tensors["output/patch_mean"], atol=5e-5)
    numbers = discretise(means)
    np.testing.assert_array_equal(numbers, tensors["output/discrete"])
    encoding = WorldPositions(int(meta["embedding_size"]))(torch.from_numpy(numbers)).flatten(1, 2).numpy()
    (name,) = (name for name in tensors if name.startswith("output/embedding"))
    every = int((re.findall(r"\d+", name) or ["1"])[0])
    np.testing.assert_allclose(encoding[:, ::every], tensors[name], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_single_points_are_encoded_alike(case: Path) -> None:
    tensors, meta = read_tensors(case)
    numbers = discretise(tensors["input/points"].numpy())
    np.testing.assert_array_equal(numbers, tensors["output/points_discrete"])
    encoding = WorldPositions(int(meta["embedding_size"]))(torch.from_numpy(numbers)).numpy()
    np.testing.assert_allclose(encoding, tensors["output/points_embedding"], atol=1e-5)
