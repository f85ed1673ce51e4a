"""The teacher ``flare``: options, what it says about itself, and how it treats checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from box_rooms import make_scene
from safetensors.torch import save_file
from torch import Tensor

from pipeline.core.errors import CheckpointError, ConfigError, DataError
from pipeline.core.provenance import file_digest
from pipeline.core.registry import create
from pipeline.teachers.base import Teacher
from pipeline.teachers.flare.config import RELEASED, TINY
from pipeline.teachers.flare.model import FLARE
from pipeline.teachers.flare.weights import check_checkpoint, load_checkpoint, untrained

ALL = ("enc_norm", "dec_norm_fine", "dec_norm_point")


def flare(**options: object) -> Teacher:
    return create("teachers", {"name": "flare", "kind": "flare", "options": options})


def tiny(**options: object) -> Teacher:
    teacher = flare(size="tiny_untrained", **options)
    assert teacher.load(None, "cpu")
    return teacher


@pytest.fixture(scope="module")
def entries() -> dict[str, Tensor]:
    return untrained(TINY, ALL, 7).entries()


@pytest.fixture
def released_is_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake for this test: the size `released` is as small as the tiny one, so that its checkpoint can be made here."""
    monkeypatch.setattr("pipeline.teachers.flare.RELEASED", TINY)


def test_the_released_model_describes_itself_without_its_file() -> None:
    teacher = flare(checkpoint="weights/flare/geometry_pose.pth", feature_layer=["enc_norm", "dec_norm_fine"])
    assert teacher.layers() == {"enc_norm": 1024, "dec_norm_fine": 768}
    assert teacher.dim == 1792
    assert (teacher.grid(968, 1296).rows, teacher.grid(968, 1296).cols) == (24, 32)
    assert teacher.feature_layer() == "enc_norm, dec_norm_fine, float32"
    assert not teacher.licences().commercial
    assert "CC BY-NC-SA" in teacher.licences().weights
    (file,) = teacher.weight_files()
    assert file.path == Path("weights/flare/geometry_pose.pth")
    assert "geometry_pose.pth" in file.what
    assert "AntResearch/FLARE" in file.source
    assert file.bytes == 4 * 1_403_248_983
    assert teacher.memory_advice() == "teachers.flare: precision: bfloat16"
    assert "; or teachers.flare: feature_layer: dec_norm_fine" in flare(checkpoint="x.pth").memory_advice()


def test_one_tap_may_stand_without_a_list() -> None:
    assert flare(checkpoint="x.pth").layers() == {"dec_norm_point": 768}
    assert flare(checkpoint="x.pth", feature_layer="enc_norm").layers() == {"enc_norm": 1024}
    assert (
        flare(checkpoint="x.pth", feature_layer="enc_norm").options
        == flare(checkpoint="x.pth", feature_layer=["enc_norm"]).options
    )


def test_only_the_encoder_is_independent_of_other_views() -> None:
    for feature_layer, depends in (("enc_norm", False), ("dec_norm_fine", True), (ALL, True)):
        teacher = flare(checkpoint="x.pth", feature_layer=feature_layer)
        assert (teacher.order_dependent, teacher.set_dependent) == (depends, depends)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": "tiny_untrained", "checkpoint": "x.pth"},
        {"checkpoint": "x.pth", "seed": 3},
        {"checkpoint": "x.pth", "feature_layer": []},
        {"checkpoint": "x.pth", "feature_layer": ["enc_norm", "enc_norm"]},
        {"checkpoint": "x.pth", "feature_layer": "dec_norm"},
        {"checkpoint": "x.pth", "layers": [-1]},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        flare(**options)


def test_the_untrained_size_is_named_so_and_needs_no_file() -> None:
    teacher = tiny(seed=4)
    assert "untrained" in teacher.feature_layer()
    assert "seed 4" in teacher.feature_layer()
    assert teacher.weight_files() == ()
    assert teacher.licences().weights == "none"
    teacher.check_weights()


def test_parts_stand_side_by_side_at_equal_strength() -> None:
    scene = make_scene(views=2)
    joint, single = (
        tiny(feature_layer=list(ALL)),
        {feature_layer: tiny(feature_layer=feature_layer).encode(scene).tokens for feature_layer in ALL},
    )
    tokens, start = joint.encode(scene).tokens, 0
    for feature_layer, width in joint.layers().items():
        part = tokens[..., start : start + width]
        np.testing.assert_allclose(np.square(part).mean(-1), 1.0, rtol=1e-4)
        cosine = (
            (part * single[feature_layer]).sum(-1)
            / np.linalg.norm(part, axis=-1)
            / np.linalg.norm(single[feature_layer], axis=-1)
        )
        # The same network up to the feature_layer: the other stages' weights are drawn from the seed stage by stage.
        assert cosine.min() > 1 - 1e-4
        start += width
    assert start == tokens.shape[-1]


def test_neither_pose_nor_depth_is_claimed() -> None:
    found = tiny().encode(make_scene(views=2))
    assert (found.pose, found.depth, found.confidence) == (None, None, None)


def test_one_view_is_enough_for_the_encoder_only() -> None:
    scene = make_scene("alone", views=1)
    assert tiny(feature_layer="enc_norm").encode(scene).tokens.shape == (1, 8, 8, 64)
    with pytest.raises(DataError, match=r"two views or more, scene 'alone' has 1"):
        tiny().prepare(scene)


def test_encode_before_load_is_a_bug() -> None:
    with pytest.raises(TypeError, match="load before encode"):
        flare(size="tiny_untrained").encode(make_scene(views=2))


@pytest.mark.usefixtures("released_is_tiny")
@pytest.mark.parametrize("form", ["model", "plain", "safetensors"])
def test_a_checkpoint_gives_the_features_of_its_weights(form: str, entries: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "geometry_pose.pth")
    if form == "safetensors":
        save_file(entries, path)
    else:
        torch.save({"model": entries, "args": argparse.Namespace(lr=1e-4), "epoch": 3} if form == "model" else entries, path)
    teacher = flare(checkpoint=str(path), feature_layer=list(ALL))
    teacher.check_weights()
    assert teacher.load(None, "cpu")
    scene = make_scene(views=3)
    np.testing.assert_allclose(
        teacher.encode(scene).tokens, tiny(feature_layer=list(ALL), seed=7).encode(scene).tokens, atol=1e-5
    )


def test_known_heads_are_left_out_and_unknown_names_are_said(
    entries: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "geometry_pose.pth"
    torch.save({"model": entries | {"downstream_head1.dpt.x": torch.ones(2), "mask_token": torch.ones(1)}}, path)
    check_checkpoint(path, TINY, fix="")
    assert capsys.readouterr().err == ""
    torch.save({"model": entries | {"newer_head.weight": torch.ones(2), "dec_norm.bias": torch.ones(2)}}, path)
    model = load_checkpoint(path, TINY, ("enc_norm",), fix="")
    assert "1 entries" in (said := capsys.readouterr().err)
    assert "newer_head.weight" in said
    assert torch.equal(model.entries()["enc_norm.weight"], entries["enc_norm.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_partial_weights_are_refused_even_where_the_tap_would_not_miss_them(
    suffix: str, entries: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    partial = {name: value for name, value in entries.items() if not name.startswith("dec_blocks_point.")}
    partial["enc_norm.weight"] = torch.ones(3)
    save_file(partial, path) if suffix == ".safetensors" else torch.save({"model": partial}, path)
    for attempt in (check_checkpoint, lambda *a, **k: load_checkpoint(*a, ("enc_norm",), **k)):
        with pytest.raises(CheckpointError, match=r"missing, first 'dec_blocks_point.0.*1 misshapen, first 'enc_norm.weight'"):
            attempt(path, TINY, fix="")


def test_a_file_of_the_released_names_and_shapes_is_accepted(tmp_path: Path) -> None:
    """A fake for this test: all entries are one stored zero, seen through strides of zero, so that the file is small."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in FLARE(RELEASED).entries().items()}
    path, zero = tmp_path / "geometry_pose.pth", torch.zeros(1)
    torch.save({"model": {name: zero.expand(shape) for name, shape in shapes.items()}}, path)
    assert path.stat().st_size < 2**20
    teacher = flare(checkpoint=str(path), feature_layer="enc_norm")
    teacher.check_weights()
    assert teacher.load(None, "cpu") == file_digest(path)
    torch.save({"model": {name: zero.expand(shape) for name, shape in list(shapes.items())[:-1]}}, path)
    with pytest.raises(CheckpointError, match="of 1860 entries 1 missing"):
        teacher.check_weights()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_missing_and_damaged_files_are_refused(suffix: str, entries: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(CheckpointError, match="do not exist") as caught:
        flare(checkpoint=str(path)).check_weights()
    assert "geometry_pose.pth" in str(caught.value)
    save_file(entries, path) if suffix == ".safetensors" else torch.save({"model": entries}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        flare(checkpoint=str(path)).check_weights()


def test_a_file_without_a_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "geometry_pose.pth"
    for content in ({"model": {}}, {"epoch": 3}, {"model": 3}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="hold no network"):
            flare(checkpoint=str(path)).check_weights()


def test_half_precision_entries_become_float32(entries: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: value.bfloat16() for name, value in entries.items()}, path)
    loaded = load_checkpoint(path, TINY, ALL, fix="").entries()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    torch.testing.assert_close(loaded["enc_norm.weight"], entries["enc_norm.weight"])


def test_bfloat16_features_stay_near_float32() -> None:
    scene = make_scene(views=2)
    plain, rough = tiny().encode(scene).tokens, tiny(precision="bfloat16").encode(scene).tokens
    assert rough.dtype == np.float32
    cosine = (plain * rough).sum(-1) / np.linalg.norm(plain, axis=-1) / np.linalg.norm(rough, axis=-1)
    assert 0.99 < cosine.mean() < 1
