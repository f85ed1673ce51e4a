"""Lossless packing: the same numbers in fewer bytes, readable as Zarr, and as hard to corrupt as plain bytes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray

from pipeline.core.errors import EnvironmentFaultError, StoreError
from pipeline.features.arrays import SceneArrays
from pipeline.features.dtypes import STATED_ERROR, cosine_error, pack, raw_bytes, to_bfloat16_bits, unpack
from pipeline.features.inspect.verification import ShardVerifier
from pipeline.features.manifest import ViewEntry, ViewManifest, source_reference
from pipeline.features.mapped import MappedArray
from pipeline.features.parallel import SMALL_BYTES, Scratch, each, in_order
from pipeline.features.spec import ArrayType
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures

LAYERS = (("layer_4", 2), ("layer_11", 3))
LARGE = TokenGrid(16, 16)
FRAMES = tuple(f"f{number}" for number in range(6))


def scaled_numbers(views: int = 6, width: int = 1024) -> NDArray[np.float32]:
    """Normal numbers with a scale per channel, as the features of vision transformers have; enough for threads to be used."""
    random = np.random.default_rng(0)
    scales = np.exp(random.standard_normal(width)).astype(np.float32)
    return random.standard_normal((views, 16, 16, width), dtype=np.float32) * scales


def large_spec(**changes) -> StoreSpec:
    return dataclasses.replace(StoreSpec("rooms", "oracle", "geometry", 1024, 16, 16, compression="lossless"), **changes)


def write(folder: Path, spec: StoreSpec, frames, features: TeacherFeatures, *, threads: int | None = None) -> Path:
    with FeatureWriter(folder, spec, threads=threads) as writer:
        writer.write("a", frames, features)
        writer.finish()
    return folder / "manifest.json"


def data_file(manifest: Path, array: str = "tokens") -> Path:
    (found,) = (manifest.parent / "features.zarr" / array / "a").glob("c.*")
    return found


# ------------------------------------------------------------------ the codec


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int8"])
@pytest.mark.parametrize("kind", ["random", "constant", "one"])
def test_packed_numbers_come_back(dtype: str, kind: str) -> None:
    shape = (1,) if kind == "one" else (7, 9, 64)
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    random = np.random.default_rng(1).integers(0, 256, count, dtype=np.uint8)
    values = (random if kind == "random" else np.full(count, 3, np.uint8)).view(dtype).reshape(shape)
    packed, found = pack(values), np.zeros(shape, dtype)
    unpack(packed, found)
    np.testing.assert_array_equal(raw_bytes(found), raw_bytes(values))
    assert len(packed) <= values.nbytes + 16
    assert kind != "constant" or len(packed) < values.nbytes / 4


def test_bytes_that_are_not_packed_numbers_are_refused() -> None:
    values = scaled_numbers(1, 64)
    packed = pack(values)
    for size in (values[:, 1:], np.concatenate([values, values])):
        with pytest.raises(ValueError, match="packed bytes are not of"):
            unpack(packed, np.empty_like(size))
    with pytest.raises(ValueError, match="3 packed bytes"):
        unpack(packed[:3], np.empty_like(values))
    header = packed.copy()
    header[0] = 99  # the version of Blosc's format
    with pytest.raises(ValueError, match="blosc"):
        unpack(header, np.empty_like(values))


# ------------------------------------------------------------------ the store


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
@pytest.mark.parametrize("layers", [(), LAYERS])
def test_every_way_of_reading_gives_what_a_plain_store_gives(tmp_path: Path, spec, features_of, frames, dtype, layers) -> None:
    plain = dataclasses.replace(spec, dtype=dtype, layers=layers)
    features = features_of("a", confidence=True)
    manifests = [
        write(tmp_path / name, dataclasses.replace(plain, compression=name), frames, features) for name in ("none", "lossless")
    ]
    for layer in [None, *(name for name, _ in layers)]:
        one, other = (FeatureReader([manifest], layer=layer) for manifest in manifests)
        np.testing.assert_array_equal(one.read("a", frames).tokens, other.read("a", frames).tokens)
        np.testing.assert_array_equal(one.read_view("a", 1).tokens, other.read_view("a", 1).tokens)
        stored = [reader.read_stored("a", frames) for reader in (one, other)]
        np.testing.assert_array_equal(stored[0].tokens, stored[1].tokens)
        np.testing.assert_array_equal(stored[0].confidence, stored[1].confidence)
        assert torch.equal(one.read_tensor("a", frames), other.read_tensor("a", frames))
        stored[1].tokens[...] = 0
        assert (other.read("a", frames).tokens != 0).any()
    assert one.spec.digest() != other.spec.digest()


def test_zarr_python_reads_and_writes_the_same_bytes(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    manifest = write(tmp_path, dataclasses.replace(spec, compression="lossless"), frames, features_of("a"))
    folder = tmp_path / "features.zarr/tokens/a"
    inner = json.loads((folder / "zarr.json").read_text())["codecs"][0]["configuration"]
    assert (inner["chunk_shape"], [codec["name"] for codec in inner["codecs"]]) == (
        [1, 3, 4, 5],
        ["bytes", "blosc"],
    )
    values = zarr.open_array(folder, mode="r")[...]
    np.testing.assert_array_equal(values, to_bfloat16_bits(features_of("a").tokens))
    ours = data_file(manifest).read_bytes()
    zarr.open_array(folder, mode="r+")[...] = values
    assert data_file(manifest).read_bytes() == ours
    verifier = ShardVerifier.of(manifest)
    assert verifier is not None
    verifier.same_as_zarr("a")
    assert [found for _, found in verifier.checksums()] == [FeatureReader([manifest]).stored_bytes("a")]


def test_features_of_a_teachers_scale_take_fewer_bytes(tmp_path: Path) -> None:
    tokens = scaled_numbers()
    size = FeatureReader([write(tmp_path, large_spec(), FRAMES, TeacherFeatures(tokens, LARGE))]).stored_bytes("a")
    assert size < 0.9 * tokens.nbytes / 2


@pytest.mark.parametrize(("dtype", "compression"), [("bfloat16", "lossless"), ("int8", "none"), ("float32", "lossless")])
def test_threads_change_no_byte(tmp_path: Path, dtype, compression) -> None:
    features = TeacherFeatures(scaled_numbers(), LARGE)
    assert features.tokens.nbytes > SMALL_BYTES
    spec = large_spec(dtype=dtype, compression=compression)
    one, many = (write(tmp_path / str(n), spec, FRAMES, features, threads=n) for n in (1, 3))
    assert one.read_bytes() == many.read_bytes()
    assert data_file(one).read_bytes() == data_file(many).read_bytes()
    tokens = [FeatureReader([one], threads=n).read("a", FRAMES).tokens for n in (1, 3)]
    np.testing.assert_array_equal(*tokens)
    assert cosine_error(features.tokens, tokens[0]).max() <= STATED_ERROR[dtype] + 1e-9
    tensors = [FeatureReader([one], threads=n).read_tensor("a", FRAMES) for n in (1, 3)]
    assert torch.equal(*tensors)


def test_a_derived_teacher_reads_a_packed_store(tmp_path: Path) -> None:
    source = write(tmp_path / "source", large_spec(), FRAMES, TeacherFeatures(scaled_numbers(), LARGE))
    path = tmp_path / "view" / "manifest.json"
    path.parent.mkdir()
    entry = ViewEntry("a", tuple(f"g{number}" for number in range(8)))
    ViewManifest(large_spec(teacher="shuffled", kind="shuffled"), {"b": entry}, (source_reference(source, path),)).write(path)
    found, direct = FeatureReader([path]), FeatureReader([source]).read("a", FRAMES).tokens
    order = [0, 1, 2, 3, 4, 5, 0, 1]
    np.testing.assert_array_equal(found.read("b", entry.frame_ids).tokens, direct[order])
    assert found.read_stored("b", entry.frame_ids).tokens.shape == (8, 16, 16, 1024)
    np.testing.assert_array_equal(found.read_view("b", 7).tokens, direct[1:2])


# --------------------------------------------------------------------- faults


def test_a_changed_byte_of_a_packed_view_is_found_before_it_is_unpacked(tmp_path: Path, spec, features_of, frames) -> None:
    manifest = write(tmp_path, dataclasses.replace(spec, compression="lossless"), frames, features_of("a"))
    path = data_file(manifest)
    whole = path.read_bytes()
    for offset in range(0, len(whole), 7):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x20]) + whole[offset + 1 :])
        with pytest.raises(StoreError, match="scene 'a' are damaged"):
            FeatureReader([manifest]).read("a", frames)
    for keep in (0, 1, 51, 52, 100, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(StoreError, match="scene 'a' are damaged"):
            FeatureReader([manifest]).read("a", frames)
    path.write_bytes(whole)
    FeatureReader([manifest]).read("a", frames)


def test_a_store_of_the_other_compression_is_refused_and_made_anew(tmp_path: Path, spec, features_of, frames) -> None:
    write(tmp_path, spec, frames, features_of("a"))
    with pytest.raises(StoreError, match="damaged"):
        MappedArray(tmp_path / "features.zarr", "tokens", "a", (3, 3, 4, 5), "uint16", "lossless")
    (tmp_path / "manifest.json").unlink()
    with FeatureWriter(tmp_path, dataclasses.replace(spec, compression="lossless")) as writer:
        assert not writer.is_done("a")
    with pytest.raises(StoreError, match="'zip'"):
        dataclasses.replace(spec, compression="zip")


def test_a_packed_view_with_a_right_checksum_and_wrong_content_is_refused(tmp_path: Path) -> None:
    """Bytes that were never packed numbers, written as a packed array."""
    arrays = SceneArrays(tmp_path)
    with arrays.create("tokens", "a", FRAMES[:2], ArrayType((3,), "uint16", "lossless")) as array:
        array.append(pack(np.arange(3, dtype=np.uint16)))
        array.append(pack(np.arange(4, dtype=np.uint16)))
    found = MappedArray(tmp_path, "tokens", "a", (2, 3), "uint16", "lossless")
    np.testing.assert_array_equal(found.view(0), [0, 1, 2])
    with pytest.raises(StoreError, match="packed bytes are not of 6 bytes"):
        found.view(1)


def test_a_fault_in_a_thread_names_the_frame_and_leaves_nothing(tmp_path: Path) -> None:
    tokens = scaled_numbers()
    tokens[4, 1, 2, 3] = np.inf
    with FeatureWriter(tmp_path, large_spec(), threads=3) as writer, pytest.raises(StoreError, match="not finite") as caught:
        writer.write("a", FRAMES, TeacherFeatures(tokens, LARGE))
    assert "frame 'f4'" in str(caught.value)
    assert not list(tmp_path.glob("features.zarr/*/a"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("views")]


def test_a_full_disk_while_threads_pack(tmp_path: Path) -> None:
    """No fake: the kernel refuses to let the file grow beyond a limit."""
    import resource

    features = TeacherFeatures(scaled_numbers(), LARGE)
    with FeatureWriter(tmp_path, large_spec(), threads=3) as writer:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with pytest.raises(EnvironmentFaultError, match="0 finished scenes are kept"):
                writer.write("a", FRAMES, features)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.write("a", FRAMES, features)
        writer.finish()
    np.testing.assert_allclose(
        FeatureReader([tmp_path / "manifest.json"]).read("a", FRAMES).tokens, features.tokens, rtol=2**-8
    )


# -------------------------------------------------------------------- threads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_few_ahead(threads: int) -> None:
    begun: list[int] = []
    results = in_order(lambda number: (begun.append(number), number * number)[1], 20, threads)
    with closing(results):
        for number, result in enumerate(results):
            assert result == number * number
            assert len(begun) <= number + 1 + threads + 1
    assert sorted(begun) == list(range(20))
    assert list(in_order(str, 0, threads)) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_stops_the_work(threads: int) -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 4:
            raise StoreError("number four")

    with pytest.raises(StoreError, match="number four"):
        each(work, 100, threads)
    assert len(begun) < 20


def test_scratch_is_kept_per_thread_and_shape() -> None:
    scratch, others = Scratch(), []
    first = scratch.array((2, 3), "uint16")
    assert scratch.array((2, 3), "uint16") is first
    assert scratch.array((3, 2), "uint16") is not first
    thread = threading.Thread(target=lambda: others.append(scratch.array((2, 3), "uint16")))
    thread.start()
    thread.join()
    assert others[0] is not first


def _sums(reader: FeatureReader, order: list[int]) -> list[float]:
    tokens = reader.read("a", FRAMES).tokens
    return [float(tokens[view].sum()) for view in order]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_reader_in_worker_processes(tmp_path: Path, start: str) -> None:
    """After threads of this process have read, too: a forked worker inherits none of them, a spawned one gets the reader."""
    manifest = write(tmp_path, large_spec(layers=(("x", 1000), ("y", 24))), FRAMES, TeacherFeatures(scaled_numbers(), LARGE))
    reader = FeatureReader([manifest], layer="y", threads=3)
    expected = _sums(reader, [0, 5])
    assert FeatureReader([manifest], threads=3).read("a", FRAMES).tokens.nbytes > SMALL_BYTES
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start)) as pool:  # a worker that dies is an error there
        assert pool.submit(_sums, reader, [0, 5]).result() == expected


def test_threads_share_a_reader(tmp_path: Path) -> None:
    manifest = write(tmp_path, large_spec(), FRAMES, TeacherFeatures(scaled_numbers(), LARGE))
    reader = FeatureReader([manifest], threads=2)
    expected = FeatureReader([manifest], threads=1).read("a", FRAMES).tokens
    with ThreadPoolExecutor(4) as pool:
        ways = (lambda: reader.read("a", FRAMES).tokens, lambda: reader.read_view("a", 3).tokens)
        found = [pool.submit(ways[number % 2]) for number in range(8)]
        for number, future in enumerate(found):
            np.testing.assert_array_equal(future.result(), expected[3:4] if number % 2 else expected)
