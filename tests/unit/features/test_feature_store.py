"""The store: what is written comes back, and nothing else ever does."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from manifest_files import change_manifest

from pipeline.core.errors import DataError, StoreError
from pipeline.features.manifest import ViewEntry, ViewManifest, source_reference
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures


def shard_file(manifest: Path, scene_id: str) -> Path:
    """The one file with a scene's tokens."""
    files = [f for f in (manifest.parent / "features.zarr/tokens" / scene_id).glob("**/*") if f.is_file()]
    return next(f for f in files if f.name != "zarr.json")


def test_round_trip(complete_shard: Path, features_of, frames) -> None:
    reader = FeatureReader([complete_shard])
    assert reader.scene_ids == ("a", "b", "c")
    assert (reader.dim, reader.grid) == (5, TokenGrid(3, 4))
    for scene_id in reader.scene_ids:
        written, found = features_of(scene_id, confidence=scene_id == "c"), reader.read(scene_id, frames)
        assert found.tokens.dtype == np.float32
        np.testing.assert_allclose(found.tokens, written.tokens, rtol=2**-8)
        assert (found.confidence is None) == (scene_id != "c")
    np.testing.assert_array_equal(found.confidence, written.confidence)


def test_float32_store_is_exact(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    with FeatureWriter(tmp_path, dataclasses.replace(spec, dtype="float32")) as writer:
        writer.write("a", frames, features_of("a"))
        writer.finish()
    found = FeatureReader([tmp_path / "manifest.json"]).read("a", frames)
    np.testing.assert_array_equal(found.tokens, features_of("a").tokens)


def test_one_view_alone(complete_shard: Path, frames) -> None:
    reader = FeatureReader([complete_shard])
    whole = reader.read("c", frames)
    one = reader.read_view("c", 1)
    np.testing.assert_array_equal(one.tokens, whole.tokens[1:2])
    np.testing.assert_array_equal(one.confidence, whole.confidence[1:2])
    with pytest.raises(StoreError, match="no view 3"):
        reader.read_view("c", 3)


def test_chunks_are_views_and_uncompressed(complete_shard: Path) -> None:
    metadata = json.loads((complete_shard.parent / "features.zarr/tokens/a/zarr.json").read_text())
    assert metadata["data_type"] == "uint16"
    inner = metadata["codecs"][0]["configuration"]
    assert inner["chunk_shape"] == [1, 3, 4, 5]
    assert [codec["name"] for codec in inner["codecs"]] == ["bytes"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("f000", "f011", "f020"), "view 1, stored 'f010', asked for 'f011'"),
        (("f000", "f010"), "view 2, stored 'f020', asked for nothing"),
        (("f000", "f010", "f020", "f030"), "view 3, stored nothing, asked for 'f030'"),
        (("f010", "f000", "f020"), "view 0, stored 'f000', asked for 'f010'"),
    ],
)
def test_other_frames_are_refused_with_the_first_difference(complete_shard: Path, asked, message) -> None:
    with pytest.raises(StoreError, match=message):
        FeatureReader([complete_shard]).read("a", asked)


def test_unknown_scene_names_the_command(complete_shard: Path, frames) -> None:
    with pytest.raises(StoreError, match="for scene 'd'") as caught:
        FeatureReader([complete_shard]).read("d", frames)
    assert f"snakemake --cores all {complete_shard}" in str(caught.value)


@pytest.mark.parametrize("offset", [0, 50, 120, 300])
def test_a_changed_byte_is_never_returned(complete_shard: Path, frames, offset: int) -> None:
    path = shard_file(complete_shard, "b")
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(StoreError, match="scene 'b' are damaged"):
        FeatureReader([complete_shard]).read("b", frames)
    FeatureReader([complete_shard]).read("a", frames)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_chunk_is_an_error(complete_shard: Path, frames, keep: int) -> None:
    path = shard_file(complete_shard, "b")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="damaged"):
        FeatureReader([complete_shard]).read("b", frames)


def test_a_missing_chunk_is_not_read_as_zeros(complete_shard: Path, frames) -> None:
    shard_file(complete_shard, "b").unlink()
    with pytest.raises(StoreError, match="damaged"):
        FeatureReader([complete_shard]).read("b", frames)


def test_malformed_metadata_is_an_error(complete_shard: Path, frames) -> None:
    (complete_shard.parent / "features.zarr/tokens/b/zarr.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        FeatureReader([complete_shard]).read("b", frames)


def test_damage_is_mended_scene_by_scene(complete_shard: Path, spec: StoreSpec, features_of, frames) -> None:
    before = complete_shard.read_bytes()
    path = shard_file(complete_shard, "b")
    path.write_bytes(path.read_bytes()[:-3])
    with FeatureWriter(complete_shard.parent, spec) as writer:
        assert [writer.is_done(s) for s in "abc"] == [True, False, True]
        assert not complete_shard.exists()
        writer.write("b", frames, features_of("b"))
        writer.finish()
    assert complete_shard.read_bytes() == before


def test_two_shards_are_read_as_one(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    manifests = []
    for index, scene_id in enumerate("xy"):
        with FeatureWriter(tmp_path / f"shard{index}", spec) as writer:
            writer.write(scene_id, frames, features_of(scene_id))
            writer.finish(shard=(index, 2))
        manifests.append(tmp_path / f"shard{index}" / "manifest.json")
    reader = FeatureReader(manifests)
    assert reader.scene_ids == ("x", "y")
    np.testing.assert_allclose(reader.read("y", frames).tokens, features_of("y").tokens, rtol=2**-8)
    with pytest.raises(StoreError, match="in two shards"):
        FeatureReader([manifests[0], manifests[0]])


def test_shards_of_different_specs_are_refused(tmp_path: Path, complete_shard: Path, spec: StoreSpec) -> None:
    with FeatureWriter(tmp_path / "other", dataclasses.replace(spec, weights="1234")) as writer:
        writer.finish()
    with pytest.raises(StoreError, match="different specs"):
        FeatureReader([complete_shard, tmp_path / "other" / "manifest.json"])


def test_missing_and_malformed_manifests(tmp_path: Path, complete_shard: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        FeatureReader([tmp_path / "nowhere" / "manifest.json"])
    with pytest.raises(StoreError, match="no feature manifests"):
        FeatureReader([])
    whole = complete_shard.read_text()
    complete_shard.write_text(whole.replace('"frame_ids"', '"frame_idz"', 1))
    with pytest.raises(StoreError, match="contradicts its own digest"):
        FeatureReader([complete_shard])
    complete_shard.write_text(whole)
    change_manifest(complete_shard, lambda content: content["scenes"]["a"]["views"]["tokens"].__setitem__(0, "0" * 8))
    with pytest.raises(StoreError, match="contradicts its own checksum"):
        FeatureReader([complete_shard])
    change_manifest(complete_shard, lambda content: content["spec"].update(schema=99))
    with pytest.raises(StoreError, match="schema 99"):
        FeatureReader([complete_shard])


@pytest.mark.parametrize("fault", ["shape", "grid", "nan", "confidence", "id"])
def test_wrong_features_are_not_written(tmp_path: Path, spec: StoreSpec, features_of, frames, fault: str) -> None:
    good = features_of("a")
    tokens = good.tokens.copy()
    tokens[1, 2, 3, 4] = np.nan
    bad = {
        "shape": TeacherFeatures(good.tokens[:2], good.grid),
        "grid": TeacherFeatures(good.tokens, TokenGrid(3, 4, (0.0, 0.0, 1.0, 0.9))),
        "nan": TeacherFeatures(tokens, good.grid),
        "confidence": TeacherFeatures(good.tokens, good.grid, np.ones((3, 4, 4), dtype=np.float32)),
        "id": good,
    }[fault]
    with FeatureWriter(tmp_path, spec) as writer, pytest.raises((StoreError, DataError)):
        writer.write("../a" if fault == "id" else "a", frames, bad)
    assert not list(tmp_path.glob("features.zarr/**/a"))


def make_view(tmp_path: Path, source: Path, spec: StoreSpec, scenes: dict[str, ViewEntry]) -> Path:
    path = tmp_path / "view" / "manifest.json"
    path.parent.mkdir()
    derived = dataclasses.replace(spec, teacher="shuffled", kind="shuffled")
    ViewManifest(derived, scenes, (source_reference(source, path),)).write(path)
    return path


def test_a_view_is_resolved(tmp_path: Path, complete_shard: Path, spec: StoreSpec) -> None:
    scenes = {"a": ViewEntry("b", ("g0", "g1", "g2")), "b": ViewEntry("a", ("h0", "h1", "h2", "h3", "h4"))}
    reader = FeatureReader([make_view(tmp_path, complete_shard, spec, scenes)])
    source = FeatureReader([complete_shard])
    assert reader.scene_ids == ("a", "b")
    assert reader.spec.teacher == "shuffled"
    np.testing.assert_array_equal(
        reader.read("a", ("g0", "g1", "g2")).tokens, source.read("b", ("f000", "f010", "f020")).tokens
    )
    longer = reader.read("b", ("h0", "h1", "h2", "h3", "h4")).tokens
    np.testing.assert_array_equal(longer, source.read("a", ("f000", "f010", "f020")).tokens[[0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(reader.read_view("b", 4).tokens, longer[4:])
    with pytest.raises(StoreError, match="for scene 'c'"):
        reader.read("c", ("f000",))
    with pytest.raises(StoreError, match="other frames"):
        reader.read("a", ("f000", "f010", "f020"))


def test_a_view_of_changed_features_is_refused(tmp_path: Path, complete_shard: Path, spec: StoreSpec, features_of) -> None:
    view = make_view(tmp_path, complete_shard, spec, {"a": ViewEntry("b", ("g0", "g1", "g2"))})
    with FeatureWriter(complete_shard.parent, spec) as writer:
        writer.write("d", ("g0",), features_of("d", views=1))
        writer.finish()
    with pytest.raises(StoreError, match="have changed"):
        FeatureReader([view])
