"""bfloat16 bit patterns against torch, and shards."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.features.dtypes import decode, encode, from_bfloat16_bits, to_bfloat16_bits
from pipeline.features.extraction import scenes_of_shard, shard_of


def test_rounding_equals_torch_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    ties = (random.integers(0, 2**16, 5000).astype(np.uint32) << np.uint32(16)) | np.uint32(0x8000)
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(to_bfloat16_bits(values), expected)
    np.testing.assert_array_equal(from_bfloat16_bits(expected), torch.from_numpy(values).to(torch.bfloat16).float().numpy())


def test_nan_stays_nan_and_infinity_infinite() -> None:
    values = np.array([np.nan, -np.inf, np.inf, 0.0, -0.0], dtype=np.float32)
    back = decode(encode(values, "bfloat16"), "bfloat16")
    np.testing.assert_array_equal(back, values)
    signalling = np.array([0x7F800001], dtype=np.uint32).view(np.float32)
    assert np.isnan(decode(encode(signalling, "bfloat16"), "bfloat16")).all()


def test_float32_is_kept_exactly() -> None:
    values = np.random.default_rng(1).normal(size=100).astype(np.float32)
    np.testing.assert_array_equal(decode(encode(values, "float32"), "float32"), values)


def test_shards_partition_the_scenes_and_do_not_move() -> None:
    scenes = [f"scene{i:04d}_00" for i in range(400)]
    parts = [scenes_of_shard(scenes, index, 4) for index in range(4)]
    assert sorted(scene for part in parts for scene in part) == scenes
    assert min(len(part) for part in parts) > 60
    assert [shard_of(s, 7) for s in ("scene0000_00", "room_1")] == [6, 1]
