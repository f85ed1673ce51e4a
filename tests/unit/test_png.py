"""Depth files: every value comes back, whoever reads them."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.png import depth_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (48, 64)])
def test_every_value_comes_back(shape):
    depth = np.random.default_rng(0).integers(0, 65536, size=shape, dtype=np.uint16)
    with Image.open(io.BytesIO(depth_png(depth))) as image:
        assert image.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(image), depth)
    assert depth_png(depth) == depth_png(depth.astype("<u2"))


def test_all_values_and_parts_of_larger_arrays():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for depth in (every, every.T, every[::3, 1::2]):
        with Image.open(io.BytesIO(depth_png(depth))) as image:
            np.testing.assert_array_equal(np.asarray(image), depth)


def test_smooth_depth_is_small():
    ramp = np.linspace(500, 4000, 640).astype(np.uint16)[None].repeat(480, 0)
    assert len(depth_png(ramp)) < ramp.nbytes / 5
