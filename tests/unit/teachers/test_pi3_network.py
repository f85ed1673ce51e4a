"""The Pi3 networks' own properties; equality with the reference is in tests/parity/test_pi3_golden.py."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from box_rooms import make_scene
from torch.utils.flop_counter import FlopCounterMode

from pipeline.core.errors import FrameError
from pipeline.core.weights import initialise
from pipeline.teachers.pi3.config import RELEASED, TINY, Variant
from pipeline.teachers.pi3.conv import with_places
from pipeline.teachers.pi3.heads import CameraNumbers, poses_of, relative_to_first
from pipeline.teachers.pi3.images import to_input, token_grid
from pipeline.teachers.pi3.model import NETWORKS, VIEWS_AT_ONCE, Network, Pi3X
from pipeline.teachers.pi3.trunk import Trunk

GRID = (6, 9)
VARIANTS: tuple[Variant, ...] = ("pi3", "pi3x")


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Network:
    network = NETWORKS[request.param](TINY)
    initialise(network, 3)
    return network.eval()


def images(views: int) -> torch.Tensor:
    return to_input(make_scene(views=views).rgb, TINY)[None]


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_view_sees_the_views_of_its_scene_and_no_others(model: Network) -> None:
    views = images(4)
    (both,) = model(views.unflatten(1, (2, 2)).flatten(0, 1)).values()
    (alone,) = model(views[:, :2]).values()
    same(both[:1], alone)
    (together,) = model(views).values()
    assert (together[:, :2] - alone).abs().max() > 1e-2


@torch.no_grad()
def test_only_wanted_layers_are_computed_and_kept(model: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    views = images(2)
    every = model(views, keep=(0, 1))
    assert sorted(every) == [0, 1]

    def forbidden(*_: object) -> torch.Tensor:
        raise AssertionError("a block after the last wanted layer was computed")

    for block in list(model.decoder)[2:]:
        monkeypatch.setattr(block, "forward", forbidden)
    (layer,) = model(views, keep=(-2,)).items()
    assert layer[0] == 0
    same(layer[1], every[0])
    with pytest.raises(AssertionError, match="after the last"):
        model(views)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_released_size_computes_without_the_host_knowing_a_number(variant: Variant) -> None:
    """Tensors on the meta device hold no numbers, so anything like .item() would raise: nothing here can make a GPU wait."""
    with torch.device("meta"):
        network = NETWORKS[variant](RELEASED)
        views = torch.zeros(1, 2, 3, 434, 574)
    with FlopCounterMode(display=False) as counter:
        (last,) = network(views).values()
    assert last.shape == (1, 2, 5 + 31 * 41, 2048)
    # 60 blocks of width 1024 cost 24 C^2 per token in their matrices; attention adds the rest.
    tokens = 2 * 31 * 41
    assert 60 * 24 * 1024**2 * tokens < counter.get_total_flops() < 1.6 * 60 * 24 * 1024**2 * tokens
    said = network.predict(last, (31, 41))
    assert said.depth.shape == said.confidence.shape == (1, 2, 31, 41)
    assert said.camera.matrix.shape == (1, 2, 3, 3)


@torch.no_grad()
def test_the_scale_of_pi3x_scales_depth_and_translation() -> None:
    network = Pi3X(TINY)
    initialise(network, 5)
    (last,) = network(images(2)).values()
    before = network.predict(last, GRID)
    network.metric_head.bias += math.log(3.0)
    after = network.predict(last, GRID)
    same(after.depth, 3 * before.depth)
    same(after.camera.translation, 3 * before.camera.translation)
    same(after.camera.matrix, before.camera.matrix)
    same(after.confidence, before.confidence)


@torch.no_grad()
def test_views_in_portions_equal_all_at_once() -> None:
    network = Pi3X(dataclasses.replace(TINY, pixel_limit=14 * 14 * 6))
    initialise(network, 6)
    count = VIEWS_AT_ONCE + 1
    tokens = torch.randn(1, count, 5 + 6, TINY.dim, generator=torch.Generator().manual_seed(0))
    depth, _ = network.maps(tokens[0], (2, 3))
    metric = network.metric(tokens, (2, 3))
    whole = depth.view(count, 2, 14, 3, 14).mean((2, 4)) * metric
    same(network.predict(tokens, (2, 3)).depth[0], whole)


def test_places_reach_the_unit_circle_at_the_corners() -> None:
    x = with_places(torch.zeros(1, 1, 40, 60), 1.5)[0, 1:]
    step = x[:, 1, 1] - x[:, 0, 0]
    corner = x[:, -1, -1] + step / 2
    torch.testing.assert_close(corner.norm(), torch.tensor(1.0))
    torch.testing.assert_close(corner[0] / corner[1], torch.tensor(1.5))
    torch.testing.assert_close(step[0], step[1])
    torch.testing.assert_close(x.flip(1, 2), -x)


def test_poses_are_rigid_and_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(200, 3, 3, dtype=torch.float64, generator=generator)
    pose = poses_of(CameraNumbers(torch.ones(200, 3, dtype=torch.float64), matrix))
    turn = pose[:, :3, :3]
    eye = torch.eye(3, dtype=torch.float64).expand(200, 3, 3)
    torch.testing.assert_close(turn @ turn.transpose(1, 2), eye)
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(200, dtype=torch.float64))
    assert torch.equal(pose[:, 3], torch.tensor([0.0, 0, 0, 1], dtype=torch.float64).expand(200, 4))
    # A rotation whose rows were stretched is found again.
    stretched = turn * torch.rand(200, 3, 1, dtype=torch.float64, generator=generator).add(0.1)
    torch.testing.assert_close(poses_of(CameraNumbers(pose[:, :3, 3], stretched)), pose)


def test_poses_relative_to_the_first_view() -> None:
    world = torch.from_numpy(make_scene(views=4).record.world_from_camera)
    found = relative_to_first(world)
    torch.testing.assert_close(found, torch.linalg.inv(world[0]) @ world)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((968, 1296), (31, 41)), ((480, 640), (31, 41)), ((1296, 968), (41, 31)), ((500, 500), (36, 36)), ((10, 1000), (3, 361))],
)
def test_grid_of_released_size(size: tuple[int, int], grid: tuple[int, int]) -> None:
    found = token_grid(*size, RELEASED)
    assert (found.rows, found.cols) == grid
    assert found.window == (0.0, 0.0, 1.0, 1.0)
    assert found.count * 14**2 <= RELEASED.pixel_limit
    if max(size) < 1000:
        assert to_input(np.zeros((1, *size, 3), dtype=np.uint8), RELEASED).shape[-2:] == (grid[0] * 14, grid[1] * 14)


@pytest.mark.parametrize("size", [(1, 10000), (10000, 1)])
def test_thin_images_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(FrameError, match="too thin"):
        token_grid(*size, RELEASED)


def test_the_trunk_of_a_network_is_the_trunk(model: Network) -> None:
    bare = Trunk(TINY)
    names = set(bare.state_dict())
    assert names < set(model.state_dict())
    bare.load_state_dict({name: value for name, value in model.state_dict().items() if name in names})
    with torch.no_grad():
        same(bare(images(2))[1], model(images(2))[1])


@torch.no_grad()
def test_the_scale_of_pi3x_is_not_rounded_under_autocast() -> None:
    """One number scales every depth and every camera's place, so its error would be all of theirs."""
    network = Pi3X(dataclasses.replace(TINY, width=128, metric_width=128, head_depth=5)).eval()
    initialise(network, 3)
    tokens = torch.randn(1, 2, 5 + math.prod(GRID), 256, generator=torch.Generator().manual_seed(0))
    exact = network.metric(tokens, GRID)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.metric(tokens, GRID), exact)
