"""Several layers in one store, depth and pose beside them, and a student's grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core.errors import DataError, StoreError
from pipeline.features.manifest import ViewEntry, ViewManifest, source_reference
from pipeline.features.resample import resample_features
from pipeline.features.spec import stored_grid
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid, resample_tokens
from pipeline.teachers.base import TeacherFeatures

LAYERS = (("layer_4", 2), ("layer_11", 3))


def full_features(features_of) -> TeacherFeatures:
    """Tokens with everything that may stand beside them."""
    random = np.random.default_rng(5)
    depth = random.uniform(0.5, 4.0, (3, 3, 4)).astype(np.float32)
    pose = random.normal(size=(3, 4, 4)).astype(np.float32)
    return dataclasses.replace(features_of("full", confidence=True), depth=depth, pose=pose)


def stored(folder: Path, spec: StoreSpec, features: TeacherFeatures, frames: tuple[str, ...]) -> Path:
    with FeatureWriter(folder, spec) as writer:
        writer.write("a", frames, features)
        writer.finish()
    return folder / "manifest.json"


def data_file(manifest: Path, array: str, scene_id: str = "a") -> Path:
    (found,) = (manifest.parent / "features.zarr" / array / scene_id).glob("c.*")
    return found


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x01
    path.write_bytes(data)


def test_depth_and_pose_come_back(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    features = full_features(features_of)
    manifest = stored(tmp_path, spec, features, frames)
    found = FeatureReader([manifest]).read("a", frames)
    for name in ("confidence", "depth", "pose"):
        np.testing.assert_array_equal(getattr(found, name), getattr(features, name))
        assert getattr(found, name).flags.writeable
    one = FeatureReader([manifest]).read_view("a", 2)
    np.testing.assert_array_equal(one.pose, features.pose[2:])
    np.testing.assert_array_equal(one.depth, features.depth[2:])


@pytest.mark.parametrize("array", ["tokens", "confidence", "depth", "pose"])
def test_a_changed_byte_of_any_array_is_found(tmp_path: Path, spec: StoreSpec, features_of, frames, array: str) -> None:
    manifest = stored(tmp_path, spec, full_features(features_of), frames)
    path = data_file(manifest, array)
    for offset in (0, path.stat().st_size - 53, path.stat().st_size - 52, path.stat().st_size - 1):  # data, index, its checksum
        whole = path.read_bytes()
        flip(path, offset)
        with pytest.raises(StoreError, match=rf"scene 'a' are damaged \((checksum of )?{array}"):
            FeatureReader([manifest]).read("a", frames)
        path.write_bytes(whole)
    FeatureReader([manifest]).read("a", frames)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("depth", np.ones((3, 3, 3), dtype=np.float32), "depth has shape"),
        ("pose", np.ones((2, 4, 4), dtype=np.float32), "pose has shape"),
        ("depth", np.full((3, 3, 4), np.nan, dtype=np.float32), "depth has numbers that are not finite"),
        ("pose", np.full((3, 4, 4), np.inf, dtype=np.float32), "pose has numbers that are not finite"),
    ],
)
def test_wrong_depth_and_pose_are_refused(tmp_path: Path, spec, features_of, frames, name, values, message) -> None:
    bad = dataclasses.replace(features_of("a"), **{name: values})
    with FeatureWriter(tmp_path, spec) as writer, pytest.raises(StoreError, match=message):
        writer.write("a", frames, bad)
    assert not list(tmp_path.glob("features.zarr/**/a"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_a_part_is_a_slice_of_the_whole(tmp_path: Path, spec: StoreSpec, features_of, frames, dtype: str) -> None:
    manifest = stored(tmp_path, dataclasses.replace(spec, layers=LAYERS, dtype=dtype), features_of("a"), frames)
    whole, layers = FeatureReader([manifest]), [FeatureReader([manifest], layer=name) for name, _ in LAYERS]
    tokens = whole.read("a", frames).tokens
    assert (whole.dim, whole.layers, [layer.dim for layer in layers]) == (5, dict(LAYERS), [2, 3])
    np.testing.assert_allclose(tokens, features_of("a").tokens, atol=2e-2)
    joined = np.concatenate([layer.read("a", frames).tokens for layer in layers], axis=-1)
    np.testing.assert_array_equal(joined, tokens)
    np.testing.assert_array_equal(layers[1].read_view("a", 1).tokens, tokens[1:2, ..., 2:])
    assert layers[0].read_tensor("a", frames).shape == (3, 3, 4, 2)


def test_reading_a_part_or_a_view_touches_nothing_else(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    manifest = stored(tmp_path, dataclasses.replace(spec, layers=LAYERS), features_of("a"), frames)
    flip(data_file(manifest, "tokens.layer_11"), 100)  # view 1 of 3, of 72 bytes each
    FeatureReader([manifest], layer="layer_4").read("a", frames)
    reader = FeatureReader([manifest], layer="layer_11")
    reader.read_view("a", 0)
    reader.read_view("a", 2)
    with pytest.raises(StoreError, match=r"tokens\.layer_11 of view 1, frame 'f010'"):
        reader.read_view("a", 1)


def test_unknown_layers_and_layers_that_do_not_add_up(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    manifest = stored(tmp_path, dataclasses.replace(spec, layers=LAYERS), features_of("a"), frames)
    with pytest.raises(StoreError, match="no layer 'layer_44', did you mean 'layer_4'") as caught:
        FeatureReader([manifest], layer="layer_44")
    assert "layer_4, layer_11" in str(caught.value)
    for layers in ((("a", 2), ("b", 2)), (("a", 2), ("a", 3)), (("a", 5), ("b", 0))):
        with pytest.raises(StoreError, match="do not make up the width 5"):
            dataclasses.replace(spec, layers=layers)
    with pytest.raises(DataError, match="not a valid id"):
        dataclasses.replace(spec, layers=(("../a", 5),))
    with pytest.raises(StoreError, match="float16"):
        dataclasses.replace(spec, dtype="float16")


def test_layers_keep_their_order_through_the_manifest(spec: StoreSpec) -> None:
    layers = (("z", 1), ("a", 4))
    changed = dataclasses.replace(spec, layers=layers, native=TokenGrid(9, 9, (0.1, 0.0, 0.9, 1.0)), member={"kind": "x"})
    again = StoreSpec.from_json(changed.to_json(), where="here")
    assert again == changed
    assert again.layers == layers
    assert len({spec.digest(), changed.digest(), dataclasses.replace(spec, layers=layers).digest()}) == 3


def test_a_view_of_a_store_with_layers(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    parted = dataclasses.replace(spec, layers=LAYERS)
    source, view = stored(tmp_path / "source", parted, full_features(features_of), frames), tmp_path / "view" / "manifest.json"
    view.parent.mkdir()
    entry = ViewEntry("a", ("g0", "g1", "g2", "g3"))
    ViewManifest(dataclasses.replace(parted, kind="view"), {"b": entry}, (source_reference(source, view),)).write(view)
    found = FeatureReader([view], layer="layer_11").read("b", entry.frame_ids)
    direct = FeatureReader([source]).read("a", frames)
    np.testing.assert_array_equal(found.tokens, direct.tokens[[0, 1, 2, 0], ..., 2:])
    np.testing.assert_array_equal(found.pose, direct.pose[[0, 1, 2, 0]])


def test_features_are_averaged_into_a_students_grid(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    features, target = full_features(features_of), TokenGrid(2, 3, (0.0, 0.1, 1.0, 0.9))
    small = dataclasses.replace(spec, rows=2, cols=3, window=target.window, native=features.grid, dtype="float32")
    found = FeatureReader([stored(tmp_path, small, features, frames)]).read("a", frames)
    assert found.grid == target
    expected = resample_tokens(torch.from_numpy(features.tokens), features.grid, target).numpy()
    np.testing.assert_allclose(found.tokens, expected, rtol=1e-5, atol=1e-6)
    for name in ("confidence", "depth"):
        maps = torch.from_numpy(getattr(features, name))[..., None]
        expected = resample_tokens(maps, features.grid, target)[..., 0].numpy()
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5)
    np.testing.assert_array_equal(found.pose, features.pose)
    with FeatureWriter(tmp_path / "other", small) as writer, pytest.raises(StoreError, match="do not fit the store"):
        writer.write("a", frames, resample_features(features, target))  # the store does that: twice would be wrong


def test_grid_option_of_a_store() -> None:
    native = TokenGrid(28, 37)
    assert stored_grid({"dtype": "bfloat16"}, native) == (native, None)
    assert stored_grid({"grid": "native"}, native) == (native, None)
    assert stored_grid({"grid": {"rows": 14, "cols": 14}}, native) == (TokenGrid(14, 14), native)
    window = [0.0, 0.0, 0.9, 1.0]
    wanted = {"grid": {"rows": 14, "cols": 14, "window": window}}
    assert stored_grid(wanted, native) == (TokenGrid(14, 14, (0.0, 0.0, 0.9, 1.0)), native)
    assert stored_grid({"grid": {"rows": 28, "cols": 37}}, native) == (native, None)
