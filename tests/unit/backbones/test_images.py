"""Resizing, normalisation and patch order against the library's own image processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pipeline.backbones._transformers import images


def _views(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_patches_equal_the_librarys_processor() -> None:
    rgb = _views(56, 84)
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 100})
    theirs = processor(images=list(rgb), return_tensors="pt")
    ours = images.patchify(images.normalise(rgb, images.CLIP), 14, 2, 2)
    assert theirs["image_grid_thw"].tolist() == [[1, 4, 6]] * 2
    assert ours.shape == theirs["pixel_values"].shape
    assert (ours - theirs["pixel_values"]).abs().max() < 2e-6


def test_normalise_by_hand() -> None:
    rgb = np.array([[[[0, 128, 255]]]], dtype=np.uint8)
    out = images.normalise(rgb, images.SIGLIP)
    assert out.shape == (1, 3, 1, 1)
    assert torch.allclose(out.flatten(), torch.tensor([-1.0, 128 / 255 * 2 - 1, 1.0]), atol=1e-6)


def test_resize_squashes_the_whole_image() -> None:
    rgb = np.zeros((1, 96, 128, 3), dtype=np.uint8)
    rgb[:, 48:, 64:] = 200
    small = images.resize(rgb, 64, 64)
    assert small.shape == (1, 64, 64, 3)
    assert small[0, 10, 10].tolist() == [0, 0, 0]
    assert small[0, 60, 60].tolist() == [200, 200, 200]
    assert images.resize(small, 64, 64) is small


def test_float_images_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        images.resize(np.zeros((1, 4, 4, 3)), 2, 2)
