"""A model's forward as a teacher's network: what is stored of its answers, and every answer that does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from box_rooms import make_scene

from pipeline.core.errors import ConfigError
from pipeline.scenes.types import Scene
from pipeline.teachers._common.resize import InputRule
from pipeline.teachers._common.views import ViewInput
from pipeline.teachers._common.wrapped import WrappedNetwork
from pipeline.teachers.base import TeacherFeatures

RULE = InputRule("long_side", 128, patch=16, multiple=16)
ROWS, COLS, VIEWS = 6, 8, 5


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene("wrapped", views=VIEWS, size=(96, 128))


def colours(images: torch.Tensor) -> torch.Tensor:
    """Mean colour per patch (v, rows * cols, 3)."""
    return torch.nn.functional.avg_pool2d(images, 16).flatten(2).transpose(1, 2)


def encoded(forward: Callable[[torch.Tensor], Any], scene: Scene, passes: int | None = None) -> TeacherFeatures:
    views = ViewInput(RULE, "bicubic", ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), "cpu")
    network = WrappedNetwork("mine", forward, views, dim=3, views_per_pass=passes)
    return network.start(network.prepare(scene))()


def turned(angle: float, shift: float) -> torch.Tensor:
    pose = torch.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    pose[:3, :3] = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    pose[0, 3] = shift
    return pose


@pytest.mark.parametrize("as_map", [False, True])
def test_tokens_are_those_of_each_patch_in_any_number_of_passes(scene: Scene, as_map: bool) -> None:
    shapes = []

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        shapes.append(tuple(images.shape))
        tokens = colours(images)
        return {"tokens": tokens.unflatten(1, (ROWS, COLS)) if as_map else tokens}

    expected = (scene.rgb.astype(np.float32) / 255).reshape(VIEWS, ROWS, 16, COLS, 16, 3).mean((2, 4))
    for passes, count in ((None, 1), (2, 3), (1, 5)):
        shapes.clear()
        np.testing.assert_allclose(encoded(forward, scene, passes).tokens, expected, atol=1e-6)
        assert len(shapes) == count


def test_maps_are_averaged_to_the_grid_and_poses_moved_to_the_first_view(scene: Scene) -> None:
    poses = torch.stack([turned(0.3 * view, view + 1.0) for view in range(VIEWS)])
    depth = torch.rand(VIEWS, 48, 64) + 1

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"tokens": colours(images), "depth": depth, "confidence": depth / 2, "pose": poses}

    found = encoded(forward, scene)
    mean = depth.numpy().reshape(VIEWS, ROWS, 8, COLS, 8).mean((2, 4))
    np.testing.assert_allclose(found.depth, mean, rtol=1e-6)
    np.testing.assert_allclose(found.confidence, mean / 2, rtol=1e-6)
    assert found.pose is not None
    np.testing.assert_array_equal(found.pose[0], np.eye(4))
    np.testing.assert_allclose(found.pose, np.linalg.inv(poses[0].numpy()) @ poses.numpy(), atol=1e-6)


MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))
ONES = torch.ones(VIEWS, 4, 4)
FAULTS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "another name": ({"deph": ONES}, "it gives tokens, deph"),
    "a special token": ({"tokens": torch.zeros(VIEWS, 1 + ROWS * COLS, 3)}, r"its tokens have the shape \(5, 49, 3\)"),
    "another width": ({"tokens": torch.zeros(VIEWS, ROWS * COLS, 4)}, r"its tokens have the shape \(5, 48, 4\)"),
    "views apart": ({"tokens": torch.zeros(1, VIEWS, ROWS * COLS, 3)}, "its tokens have the shape"),
    "a flat map": ({"depth": torch.ones(VIEWS, 48)}, "its depth have the shape"),
    "depth 0": ({"depth": 0 * ONES}, "its depth has numbers out of range"),
    "no number": ({"confidence": float("nan") * ONES}, "its confidence has numbers out of range"),
    "confidence 2": ({"confidence": 2 * ONES}, "its confidence has numbers out of range"),
    "3 x 4 poses": ({"pose": ONES[:, :3]}, "its pose have the shape"),
    "a mirrored pose": ({"pose": MIRROR.expand(VIEWS, 4, 4)}, "its pose has numbers out of range"),
    "camera from world, transposed": ({"pose": turned(0.1, 2.0).T.expand(VIEWS, 4, 4)}, "its pose has numbers out of range"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_does_not_fit_is_refused(scene: Scene, fault: str) -> None:
    answer, message = FAULTS[fault]
    with pytest.raises(ConfigError, match=message) as caught:
        encoded(lambda images: {"tokens": colours(images)} | answer, scene)
    assert caught.value.where == "the forward of teachers.mine"


def test_poses_of_views_that_are_encoded_apart_are_refused(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="poses of views that are encoded separately"):
        encoded(lambda images: {"tokens": colours(images), "pose": torch.eye(4).expand(len(images), 4, 4)}, scene, passes=2)
