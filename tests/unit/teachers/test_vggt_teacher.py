"""Teacher ``vggt``: weights of the released form at a tiny size, layers, predictions, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from box_rooms import make_scene
from safetensors.torch import save_file

from pipeline.core import registry
from pipeline.core.errors import CheckpointError, ConfigError
from pipeline.core.weights import initialise
from pipeline.scenes.types import Scene
from pipeline.teachers import vggt as member
from pipeline.teachers.base import Teacher
from pipeline.teachers.vggt import features as features_module
from pipeline.teachers.vggt.config import ROOMS
from pipeline.teachers.vggt.features import DENSE_VIEWS, first_view_poses, random_features
from pipeline.teachers.vggt.images import to_input
from pipeline.teachers.vggt.model import VGGT

SIZE = (96, 128)


@pytest.fixture(autouse=True)
def released_size_is_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code path of size 1b with the widths of size rooms."""
    monkeypatch.setattr(member, "RELEASED_1B", ROOMS)


@pytest.fixture(scope="module")
def network() -> VGGT:
    model = VGGT(ROOMS)
    initialise(model, 7)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def released(network: VGGT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with model.pt and model.safetensors as they are released: with the tracker, which is not built here."""
    folder = tmp_path_factory.mktemp("released")
    state = network.state_dict() | {"track_head.tracker.query_points": torch.ones(3, 4)}
    torch.save(state, folder / "model.pt")
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene("vggt", views=3, size=SIZE)


def teacher(checkpoint: Path | None, **options: Any) -> Teacher:
    content = {"size": "1b", "checkpoint": str(checkpoint) if checkpoint else None} | options
    return registry.create("teachers", {"name": "vggt_1b", "kind": "vggt", "options": content})


def loaded(checkpoint: Path, **options: Any) -> Teacher:
    member = teacher(checkpoint, **options)
    member.check_weights()
    member.load(None, "cpu")
    return member


@torch.no_grad()
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_released_weights_give_the_networks_features(network: VGGT, released: Path, scene: Scene, name: str) -> None:
    layers = network.aggregator(to_input(scene.rgb, ROOMS)[None], keep=(0, 1))
    expected = layers[1][0, :, ROOMS.lead :].unflatten(1, (6, 8))
    found = loaded(released / name).encode(scene)
    np.testing.assert_allclose(found.tokens, expected.numpy(), atol=1e-5)
    assert (found.confidence, found.depth, found.pose) == (None, None, None)
    both = loaded(released / name, layers=[0, -1]).encode(scene).tokens
    first = layers[0][0, :, ROOMS.lead :].unflatten(1, (6, 8)).numpy()
    scaled = first / np.sqrt((first**2).mean(-1, keepdims=True))
    np.testing.assert_allclose(both[..., : ROOMS.dim], scaled, atol=1e-4)


def test_parts_name_what_stands_side_by_side(released: Path) -> None:
    member = teacher(released / "model.pt", layers=[0, -1], feature_layer="aggregated+encoder")
    assert member.layers() == {"layer0": ROOMS.dim, "layer1": ROOMS.dim, "encoder": ROOMS.width}
    assert sum(member.layers().values()) == member.dim
    assert list(teacher(released / "model.pt", layers=[-2]).layers()) == ["layer0"]


def test_licences_and_files_are_stated(released: Path) -> None:
    member = teacher(released / "model.pt")
    assert "NC" in member.licences().weights
    assert not member.licences().commercial
    (file,) = member.weight_files()
    assert file.path == released / "model.pt"
    assert "facebook/VGGT-1B" in file.source
    built_in = registry.create("teachers", {"name": "v", "kind": "vggt", "options": dict(type(member).example)})
    assert built_in.weight_files() == ()
    assert built_in.licences().commercial
    built_in.check_weights()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [2]}, "no layer 2: -2 to 1"),
        ({"layers": [-3]}, "no layer -3"),
        ({"layers": [1, -1]}, "name a layer twice"),
        ({"checkpoint": None}, "give checkpoint"),
        ({"predictions": "some"}, "predictions"),
        ({"predict": True}, "did you mean 'predictions'"),
        ({"images": "squash"}, "images"),
        ({"size": "rooms", "checkpoint": None, "pretrain": {"dataset": "d"}, "images": "pad"}, "images: crop"),
    ],
)
def test_impossible_options_are_refused(released: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        teacher(**{"checkpoint": released / "model.pt"} | options)


def test_padded_portraits_are_seen_where_the_grid_says(released: Path) -> None:
    """A change in the lowest quarter of a portrait, which a crop would lose, is seen there and nowhere in the padding."""
    member, size = loaded(released / "model.pt", images="pad"), (128, 80)
    tall = make_scene("tall", views=2, size=size)
    grid = member.grid(*size)
    assert (grid.rows, grid.cols, grid.window) == (8, 8, (-0.3, 0.0, 1.3, 1.0))
    rgb = tall.rgb.copy()
    rgb[0, -24:] = 255 - rgb[0, -24:]
    found, other = member.encode(tall), member.encode(Scene(tall.record, rgb, tall.depth_m))
    assert found.grid == grid
    change = np.linalg.norm(other.tokens - found.tokens, axis=-1)[0]
    row, col = np.unravel_index(change.argmax(), change.shape)
    assert row >= 6
    assert 0 <= grid.window[0] + (col + 0.5) / grid.cols * (grid.window[2] - grid.window[0]) <= 1


@torch.no_grad()
def test_predictions_are_the_heads_averaged_to_the_grid(network: VGGT, released: Path) -> None:
    scene = make_scene("many", views=DENSE_VIEWS + 2, size=SIZE)
    found = loaded(released / "model.pt", predictions=True).encode(scene)
    whole = network(to_input(scene.rgb, ROOMS)[None])
    depth = F.avg_pool2d(whole.depth[0], ROOMS.patch // ROOMS.output_stride)
    sure = F.avg_pool2d(1 - 1 / whole.depth_confidence[0], ROOMS.patch // ROOMS.output_stride)
    np.testing.assert_allclose(found.depth, depth.numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.confidence, sure.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.tokens, loaded(released / "model.pt").encode(scene).tokens)


def test_poses_are_relative_to_the_first_view() -> None:
    codes = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    poses = first_view_poses(codes, (96, 128)).astype(np.float64)
    assert np.abs(poses[0] - np.eye(4)).max() < 1e-6
    # The camera centre of view 2 in the frame of view 0, step by step from the code: -R^T t, then into view 0.
    turn = features_module.decode_pose(torch.from_numpy(codes).double(), (96, 128))[0].numpy()
    centre = -turn[2][:, :3].T @ turn[2][:, 3]
    np.testing.assert_allclose(poses[2, :3, 3], turn[0][:, :3] @ centre + turn[0][:, 3], atol=1e-5)


def test_heads_are_not_loaded_unless_asked(released: Path) -> None:
    plain, predicting = loaded(released / "model.pt"), loaded(released / "model.pt", predictions=True)
    assert plain.network.network.heads == frozenset()  # type: ignore[attr-defined]
    assert predicting.network.network.heads == {"camera", "depth"}  # type: ignore[attr-defined]
    assert plain.feature_layer() != predicting.feature_layer()
    assert "predictions: false" in predicting.memory_advice()


def test_bfloat16_changes_little(released: Path, scene: Scene) -> None:
    full = loaded(released / "model.pt", predictions=True).encode(scene)
    half = loaded(released / "model.pt", predictions=True, precision="bfloat16").encode(scene)
    cosine = (full.tokens * half.tokens).sum(-1) / np.linalg.norm(full.tokens, axis=-1) / np.linalg.norm(half.tokens, axis=-1)
    assert 0.999 < cosine.min() <= 1 + 1e-6
    assert not np.array_equal(full.tokens, half.tokens)
    np.testing.assert_allclose(half.depth, full.depth, rtol=0.05)


def spoiled(network: VGGT, fault: str) -> Any:
    state: dict[str, Any] = dict(network.state_dict())
    if fault == "missing":
        state = {name: value for name, value in state.items() if not name.startswith("depth_head.norm")}
    elif fault == "unexpected":
        state["aggregator.frame_blocks.9.norm1.weight"] = torch.ones(4)
    elif fault == "misshapen":
        state["aggregator.camera_token"] = torch.ones(1, 2, 1, 4)
    elif fault == "nested":
        state = {"model": state, "epoch": torch.ones(1)}
    else:
        return list(state.values())
    return state


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "2 missing, first 'depth_head.norm.bias'"),
        ("unexpected", "1 unexpected, first 'aggregator.frame_blocks.9"),
        ("misshapen", "1 misshapen, first 'aggregator.camera_token'"),
        ("nested", "dict under 'model', not a tensor"),
        ("list", "hold list, not named tensors"),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_wrong_weights_are_refused_by_both_checks(network: VGGT, tmp_path: Path, fault: str, message: str, suffix: str) -> None:
    if fault in ("nested", "list") and suffix == "safetensors":
        pytest.skip("the format holds tensors only")
    state, path = spoiled(network, fault), tmp_path / f"model.{suffix}"
    torch.save(state, path) if suffix == "pt" else save_file(state, path)
    member = teacher(path)
    for check in (member.check_weights, lambda: member.load(None, "cpu")):
        with pytest.raises(CheckpointError, match=message):
            check()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_partial_downloads_are_refused(released: Path, tmp_path: Path, suffix: str) -> None:
    whole, path = (released / f"model.{suffix}").read_bytes(), tmp_path / f"model.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    for member_path, message in ((path, "cannot be read"), (tmp_path / "none.pt", "do not exist")):
        member = teacher(member_path)
        for check in (member.check_weights, lambda member=member: member.load(None, "cpu")):
            with pytest.raises(CheckpointError, match=message) as found:
                check()
            assert "teachers.vggt_1b.checkpoint" in str(found.value)


def test_checking_a_safetensors_file_reads_its_header_only(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the tensors were read")

    monkeypatch.setattr("pipeline.core.weights.load_file", refuse)
    teacher(released / "model.safetensors").check_weights()
    with pytest.raises((AssertionError, CheckpointError), match="the tensors were read"):
        teacher(released / "model.safetensors").load(None, "cpu")


def test_a_random_network_refuses_layers_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="no layer 5"):
        random_features(ROOMS, 0, (5,), "cpu")
