"""The store on disk as Zarr, and the reading paths that do not convert."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from pipeline.core.errors import StoreError
from pipeline.features.dtypes import from_bfloat16_bits, to_bfloat16_bits
from pipeline.features.mapped import MappedArray
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures


def test_zarr_python_reads_what_is_written(complete_shard: Path, features_of) -> None:
    store = zarr.open_group(complete_shard.parent / "features.zarr", mode="r")
    assert sorted(store.group_keys()) == ["confidence", "tokens"]
    for scene_id in "abc":
        found = store[f"tokens/{scene_id}"][...]
        np.testing.assert_array_equal(found, to_bfloat16_bits(features_of(scene_id, confidence=scene_id == "c").tokens))
    np.testing.assert_array_equal(store["confidence/c"][1], features_of("c", confidence=True).confidence[1])


def test_arrays_that_zarr_python_wrote_are_read(complete_shard: Path, frames) -> None:
    """The layout is Zarr's, not one of our own: a shard file made by zarr-python has the same bytes."""
    store = complete_shard.parent / "features.zarr"
    (path,) = (store / "tokens/a").glob("c.*")
    ours, values = path.read_bytes(), zarr.open_array(store / "tokens/a", mode="r")[...]
    zarr.open_array(store / "tokens/a", mode="r+")[...] = values
    theirs = path.read_bytes()
    assert len(theirs) == len(ours)
    assert theirs == ours
    FeatureReader([complete_shard]).read("a", frames)


def test_stored_numbers_are_mapped_and_cannot_change_the_store(complete_shard: Path, features_of, frames) -> None:
    reader = FeatureReader([complete_shard])
    found = reader.read_stored("c", frames)
    assert (found.tokens.dtype, found.dtype, found.scales) == (np.uint16, "bfloat16", None)
    np.testing.assert_array_equal(from_bfloat16_bits(found.tokens), reader.read("c", frames).tokens)
    found.tokens[...] = 0
    np.testing.assert_array_equal(reader.read("c", frames).confidence, features_of("c", confidence=True).confidence)
    assert (reader.read("c", frames).tokens != 0).any()
    with pytest.raises(StoreError, match="other frames"):
        reader.read_stored("c", frames[::-1])


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", torch.bfloat16), ("float32", torch.float32), ("int8", torch.bfloat16)]
)
def test_tensors_without_a_float32_copy(tmp_path: Path, spec: StoreSpec, features_of, frames, dtype, expected) -> None:
    with FeatureWriter(tmp_path, dataclasses.replace(spec, dtype=dtype)) as writer:
        writer.write("a", frames, features_of("a"))
        writer.finish()
    reader = FeatureReader([tmp_path / "manifest.json"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reader.read_tensor("a", frames)
    assert (found.dtype, found.shape) == (expected, (3, 3, 4, 5))
    np.testing.assert_allclose(found.float().numpy(), reader.read("a", frames).tokens, rtol=2**-8)
    out = torch.zeros(3, 3, 4, 5, dtype=expected)
    assert reader.read_tensor("a", frames, out=out) is out
    assert torch.equal(out, found)


def test_a_file_cut_while_it_is_mapped_is_an_error_not_a_signal(complete_shard: Path) -> None:
    mapped = MappedArray(complete_shard.parent / "features.zarr", "tokens", "a", (3, 3, 4, 5), "uint16")
    (path,) = (complete_shard.parent / "features.zarr/tokens/a").glob("c.*")
    with path.open("r+b") as stream:
        stream.truncate(0)
    with pytest.raises(StoreError, match="damaged"):
        mapped.view(0)


def test_description_of_another_array_is_refused(complete_shard: Path, frames) -> None:
    path = complete_shard.parent / "features.zarr/tokens/b/zarr.json"
    description = json.loads(path.read_text())
    for change in ({"data_type": "int16"}, {"shape": [3, 4, 3, 5]}, {"codecs": [{"name": "bytes"}]}):
        path.write_text(json.dumps(description | change))
        with pytest.raises(StoreError, match="damaged"):
            FeatureReader([complete_shard]).read("b", frames)
    path.write_text(json.dumps(description | {"attributes": {"note": "harmless"}}))
    FeatureReader([complete_shard]).read("b", frames)


def test_verify_finds_what_was_damaged_after_the_first_read(complete_shard: Path, frames) -> None:
    reader = FeatureReader([complete_shard])
    reader.read("b", frames)
    size = reader.verify("b")
    assert size == sum(f.stat().st_size for f in (complete_shard.parent / "features.zarr").glob("*/b/*"))
    (path,) = (complete_shard.parent / "features.zarr/tokens/b").glob("c.*")
    data = bytearray(path.read_bytes())
    data[7] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(StoreError, match="checksum of tokens of view 0"):
        reader.verify("b")
    (complete_shard.parent / "features.zarr/tokens/a/more").write_bytes(b"x")
    with pytest.raises(StoreError, match="bytes on disk instead of"):
        reader.verify("a")


def test_memory_does_not_grow_with_the_number_of_scenes(tmp_path: Path) -> None:
    grid, peaks = TokenGrid(8, 8), []
    spec = StoreSpec("rooms", "oracle", "geometry", 64, 8, 8, dtype="float32")
    tokens = np.random.default_rng(0).normal(size=(8, 8, 8, 64)).astype(np.float32)
    for scenes in (4, 40):
        tracemalloc.start()
        with FeatureWriter(tmp_path / str(scenes), spec) as writer:
            for number in range(scenes):
                writer.write(f"s{number}", [f"f{v}" for v in range(8)], TeacherFeatures(tokens, grid))
            writer.finish()
        reader = FeatureReader([tmp_path / str(scenes) / "manifest.json"])
        for scene_id in reader.scene_ids:
            reader.read(scene_id, [f"f{v}" for v in range(8)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 36 * 8000  # per scene: its frame ids and checksums, not its 131 kB of features
