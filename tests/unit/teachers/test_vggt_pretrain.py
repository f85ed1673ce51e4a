"""Training of the small VGGT: deterministic, resumable after a kill, better than it began; and the commands around it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from box_rooms import make_scene, write_dataset

from pipeline.__main__ import main
from pipeline.core.errors import CheckpointError, ConfigError, DataError
from pipeline.core.registry import create
from pipeline.core.weights import read_weights
from pipeline.features.store import FeatureReader
from pipeline.scenes.index import SceneIndex
from pipeline.teachers.vggt import pretrain as making
from pipeline.teachers.vggt.config import ROOMS
from pipeline.teachers.vggt.model import VGGT
from pipeline.teachers.vggt.pretrain import Plan, pretrain

TINY = replace(ROOMS, patch=16, width=32, encoder_depth=1, depth=1, dpt_layers=(0, 0, 0, 0), output_stride=8)
PLAN = Plan(6, 4, 0.75, 1e-3, 6, 4, 1e-3, 0)
Whole = tuple[dict[str, float], bytes]
SHORT = {"masked_steps": 2, "masked_images": 2, "steps": 2, "images": 2}
VGGT_ROOMS = {
    "name": "vggt_rooms",
    "kind": "vggt",
    "options": {"size": "rooms", "feature_layer": "aggregated+encoder", "pretrain": {"dataset": "boxes", **SHORT}},
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    scenes = [make_scene(f"box{i}", views=3) for i in range(12)]
    return write_dataset(tmp_path_factory.mktemp("boxes"), scenes)


@pytest.fixture(scope="module")
def whole(index: SceneIndex, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Figures and weights of an uninterrupted training by PLAN."""
    folder = tmp_path_factory.mktemp("whole")
    return pretrain(index, folder, TINY, PLAN, "cpu"), (folder / "model.safetensors").read_bytes()


def test_the_same_plan_gives_the_same_weights(whole: Whole, index: SceneIndex, tmp_path: Path) -> None:
    assert pretrain(index, tmp_path / "again", TINY, PLAN, "cpu") == whole[0]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == whole[1]
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["model.safetensors"]
    assert whole[0]["held_out_scenes"] == 1
    assert pretrain(index, tmp_path / "other", TINY, replace(PLAN, seed=1), "cpu") != whole[0]


@pytest.mark.parametrize("stop_at", [7, 10])
def test_a_killed_training_resumes_to_the_same_weights(
    whole: Whole, index: SceneIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(making, "CHECKPOINT_EVERY", 2)
    steps = 0
    original = making.Stage.step

    def stopping(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(making.Stage, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(index, tmp_path / "killed", TINY, PLAN, "cpu")
    steps = 100
    assert pretrain(index, tmp_path / "killed", TINY, PLAN, "cpu") == whole[0]
    assert steps - 100 == {7: 6, 10: 4}[stop_at], "the masked stage is not repeated"
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == whole[1]


def test_it_learns(index: SceneIndex, tmp_path: Path) -> None:
    figures = pretrain(index, tmp_path, TINY, Plan(0, 1, 0.75, 1e-3, 40, 6, 2e-3, 0), "cpu")
    assert figures["depth_absrel"] < figures["depth_absrel_constant"] * 1.2
    started = pretrain(index, tmp_path / "start", TINY, Plan(0, 1, 0.75, 1e-3, 2, 6, 2e-3, 0), "cpu")
    assert figures["loss_geometry"] < 0.7 * started["loss_geometry"]


def test_too_few_scenes_are_refused(tmp_path: Path) -> None:
    small = write_dataset(tmp_path / "one", [make_scene("box0", views=2)])
    with pytest.raises(DataError, match="cannot learn from 1 scenes"):
        pretrain(small, tmp_path, TINY, PLAN, "cpu")


def test_the_verbs(index: SceneIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "teacher" / "manifest.json"
    spec = {"teacher": VGGT_ROOMS, "code": "x"}
    arguments = ["--spec", json.dumps(spec), "--scenes", str(index.path), "--out", str(weights)]
    assert main(["pretrain_teacher", *arguments]) == 0
    manifest = json.loads(weights.read_text())
    assert list(manifest["files"]) == ["model.safetensors"]
    assert manifest["figures"]["depth_absrel"] > 0
    out = tmp_path / "features" / "manifest.json"
    spec |= {"dataset": "boxes", "shard": 0, "shards": 1, "splits": ["train"], "store": {"dtype": "bfloat16"}}
    arguments = ["--spec", json.dumps(spec), "--scenes", str(index.path), "--out", str(out)]
    assert main(["extract", *arguments]) == 2
    assert "needs its weights" in capsys.readouterr().err
    assert main(["extract", *arguments, "--weights", str(weights)]) == 0
    reader = FeatureReader([out])
    assert reader.dim == create("teachers", VGGT_ROOMS).dim == 3 * ROOMS.width
    assert reader.spec.weights == manifest["files"]["model.safetensors"]
    spec["teacher"] = {"name": "random", "kind": "random", "options": {}}
    assert main(["pretrain_teacher", "--spec", json.dumps(spec), *arguments[2:]]) == 2
    assert "not trained here" in capsys.readouterr().err


def test_partial_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = VGGT(ROOMS).state_dict()
    removed = state.pop("depth_head.norm.weight")
    state["camera_head.extra"] = removed
    state["aggregator.patch_embed.norm.weight"] = torch.zeros(7)
    save_file(state, tmp_path / "model.safetensors")
    teacher = create("teachers", VGGT_ROOMS)
    message = (
        r"1 missing, first 'depth_head.norm.weight' \[256\]; 1 unexpected, .*; 1 misshapen, "
        r"first 'aggregator.patch_embed.norm.weight': \[7\] in the file, \[128\] in the network"
    )
    with pytest.raises(CheckpointError, match=message):
        teacher.load(tmp_path, "cpu")
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        teacher.load(tmp_path, "cpu")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="do not exist"):
        read_weights(tmp_path / "model.safetensors", fix="make them")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "rooms"}, "size rooms is trained here"),
        ({"size": "1b"}, "size 1b is a released checkpoint"),
        ({"size": "rooms", "pretrain": {"dataset": "boxes", "step": 3}}, "did you mean 'steps'"),
        ({"size": "tiny"}, "'rooms' or '1b'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create("teachers", {"name": "v", "kind": "vggt", "options": options})


def test_who_is_trained_here() -> None:
    assert create("teachers", VGGT_ROOMS).trained_in_workflow
    assert create("teachers", VGGT_ROOMS).pretrain_dataset() == "boxes"
    released = create("teachers", {"name": "v", "kind": "vggt", "options": {"checkpoint": "weights/vggt/model.pt"}})
    assert not released.trained_in_workflow
    assert released.dim == 2048
    assert released.grid(968, 1296).rows == 28
    with pytest.raises(CheckpointError, match="do not exist"):
        released.load(None, "cpu")
