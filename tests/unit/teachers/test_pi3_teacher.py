"""The teacher ``pi3``: options, licences, loading of weight files, and what it says about a scene."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_rooms import make_scene
from safetensors.torch import save_file

from pipeline.core import registry
from pipeline.core.errors import CheckpointError, ConfigError
from pipeline.core.weights import initialise
from pipeline.scenes.types import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures
from pipeline.teachers.pi3 import features
from pipeline.teachers.pi3.config import TINY, Variant
from pipeline.teachers.pi3.features import check_released, load_features, tiny_features
from pipeline.teachers.pi3.model import NETWORKS

VARIANTS: tuple[Variant, ...] = ("pi3", "pi3x")


def teacher(**options: Any) -> Teacher:
    return registry.create("teachers", {"name": "t", "kind": "pi3", "options": options})


def tiny(**options: Any) -> Teacher:
    made = teacher(**{"size": "tiny_untrained", "predictions": True} | options)
    made.load(None, "cpu")
    return made


def chosen(scene: Scene, views: list[int]) -> Scene:
    record = dataclasses.replace(
        scene.record,
        frame_ids=tuple(scene.record.frame_ids[view] for view in views),
        world_from_camera=scene.record.world_from_camera[views],
    )
    return Scene(record, scene.rgb[views], scene.depth_m[views])


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene("pi3", views=4)


@pytest.fixture
def weights(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The tiny size's own weights as a released file would hold them (variant by parameter, default pi3)."""
    variant: Variant = getattr(request, "param", "pi3")
    network = NETWORKS[variant](TINY)
    initialise(network, features.TINY_SEED)
    state = dict(network.state_dict())
    if variant == "pi3x":
        state["depth_encoder.norm.weight"] = torch.ones(3)
    save_file(state, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "size released needs checkpoint"),
        ({"size": "tiny_untrained", "checkpoint": "x"}, "size tiny_untrained takes none"),
        ({"checkpoint": "x", "layers": [18]}, "no layer 18 .allowed: -18 to 17"),
        ({"size": "tiny_untrained", "layers": [-3]}, "no layer -3"),
        ({"checkpoint": "x", "layers": [17, -1]}, "every layer once"),
        ({"size": "tiny_untrained", "variant": "pi3y"}, "variant"),
        ({"size": "tiny_untrained", "layer": [0]}, "did you mean 'layers'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        teacher(**options)


def test_description_of_the_released_size() -> None:
    made = teacher(checkpoint="w/model.safetensors", variant="pi3x", layers=[8, -1])
    assert made.dim == 4096
    assert made.layers() == {"layer8": 2048, "layer17": 2048}
    assert made.grid(968, 1296).count == 31 * 41
    assert "pi3x" in made.feature_layer()
    assert teacher(checkpoint="w", predictions=True).feature_layer() != teacher(checkpoint="w").feature_layer()
    assert not made.order_dependent
    assert made.set_dependent
    assert not made.licences().commercial
    assert "CC BY-NC 4.0" in made.licences().weights
    (file,) = made.weight_files()
    assert file.path == Path("w/model.safetensors")
    assert "yyfz233/Pi3X" in file.what
    assert "yyfz233/Pi3X" in file.source
    assert file.bytes == 4 * 1_360_032_439


def test_what_needs_less_memory_is_named() -> None:
    assert teacher(checkpoint="x", predictions=True).memory_advice() == "teachers.t: precision: bfloat16, predictions: false"
    assert teacher(checkpoint="x", precision="bfloat16").memory_advice() == ""


def test_the_tiny_size_needs_no_files() -> None:
    made = tiny()
    assert made.weight_files() == ()
    made.check_weights()
    assert made.licences().commercial
    assert made.load(None, "cpu") == made.load(None, "cpu") != ""


def test_predictions_can_be_left_out(scene: Scene) -> None:
    found, whole = tiny(predictions=False).encode(scene), tiny().encode(scene)
    assert found.depth is None
    assert found.confidence is None
    assert found.pose is None
    np.testing.assert_array_equal(found.tokens, whole.tokens)


@pytest.mark.parametrize("variant", VARIANTS)
def test_another_order_is_the_same_in_another_order(variant: Variant, scene: Scene) -> None:
    made, order = tiny(variant=variant), [2, 0, 3, 1]
    plain, other = made.encode(scene), made.encode(chosen(scene, order))
    np.testing.assert_allclose(other.tokens, plain.tokens[order], atol=1e-4)
    assert plain.depth is not None
    assert plain.pose is not None
    assert other.pose is not None
    np.testing.assert_allclose(other.depth, plain.depth[order], rtol=1e-4)
    # The poses are the same ones, told from the new first view.
    np.testing.assert_allclose(other.pose, np.linalg.inv(plain.pose[2]) @ plain.pose[order], atol=1e-4)


def test_several_layers_weigh_the_same(scene: Scene) -> None:
    both, last = tiny(layers=[0, -1]).encode(scene).tokens, tiny().encode(scene).tokens
    assert both.shape[-1] == 128
    for part in np.split(both, 2, axis=-1):
        np.testing.assert_allclose(np.square(part).mean(-1), 1.0, rtol=1e-3)
    scale = np.sqrt(np.square(last).mean(-1, keepdims=True))
    np.testing.assert_allclose(both[..., 64:], last / scale, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_is_close_to_float32(variant: Variant, scene: Scene) -> None:
    exact, rough = (tiny(variant=variant, precision=p).encode(scene) for p in ("float32", "bfloat16"))
    a, b = exact.tokens.reshape(-1, 64), rough.tokens.reshape(-1, 64)
    assert rough.tokens.dtype == np.float32
    assert not np.array_equal(a, b)
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.99
    np.testing.assert_allclose(rough.depth, exact.depth, rtol=0.01)


def loaded(path: Path, variant: Variant = "pi3", *, predictions: bool = True) -> TeacherFeatures:
    network, value = load_features(
        path, variant, (-1,), predictions=predictions, device="cpu", bfloat16=False, fix="get it", config=TINY
    )
    assert value
    return network.encode(make_scene("pi3", views=2))


@pytest.mark.parametrize(("weights", "variant"), [(v, v) for v in VARIANTS], indirect=["weights"])
@pytest.mark.parametrize("predictions", [True, False])
def test_a_file_gives_the_network_it_holds(weights: Path, variant: Variant, predictions: bool) -> None:
    found = loaded(weights, variant, predictions=predictions)
    whole, _ = tiny_features(variant, (-1,), predictions=True, device="cpu", bfloat16=False)
    expected = whole.encode(make_scene("pi3", views=2))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert (found.depth is not None) == predictions
    if predictions:
        np.testing.assert_array_equal(found.depth, expected.depth)


def test_checking_reads_no_numbers(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "read_weights", lambda *_, **__: pytest.fail("numbers were read"))
    check_released(weights, "pi3", fix="get it", config=TINY)
    with pytest.raises(CheckpointError, match=r"misshapen, first 'camera_decoder"):
        teacher(checkpoint=str(weights)).check_weights()


@pytest.mark.parametrize("weights", ["pi3", "pi3x"], indirect=True)
def test_weights_of_the_other_variant_are_told(weights: Path) -> None:
    wrong, right = ("pi3", "pi3x") if "metric_token" in features.read_shapes(weights, fix="") else ("pi3x", "pi3")
    with pytest.raises(CheckpointError, match=f"not of variant {wrong}") as caught:
        teacher(checkpoint=str(weights), variant=wrong).check_weights()
    assert f"variant: {right}" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("conf_head.proj.bias"), "1 missing, first 'conf_head.proj.bias'"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 unexpected, first 'extra'"),
        (lambda state: state.update(register_token=torch.zeros(1, 1, 4, 32)), "1 misshapen, first 'register_token'"),
    ],
)
def test_partial_and_other_weights_are_refused(weights: Path, spoil: Any, message: str) -> None:
    """Also where the spoilt entry belongs to a head that is not built."""
    network = NETWORKS["pi3"](TINY)
    state = dict(network.state_dict())
    spoil(state)
    save_file(state, weights)
    with pytest.raises(CheckpointError, match=message):
        loaded(weights, predictions=False)


def test_missing_and_cut_files_are_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-100])
    for path, message in ((weights, "cannot be read"), (weights.with_name("none.safetensors"), "do not exist")):
        made = teacher(checkpoint=str(path))
        for act in (made.check_weights, lambda made=made: made.load(None, "cpu")):
            with pytest.raises(CheckpointError, match=message) as caught:
                act()
            assert "yyfz233/Pi3" in str(caught.value)
