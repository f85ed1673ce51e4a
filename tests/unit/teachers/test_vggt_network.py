"""The VGGT network's own properties; equality with the reference is in tests/parity/test_vggt_golden.py."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from box_rooms import make_scene

from pipeline.core.errors import FrameError
from pipeline.core.weights import initialise
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.vggt.camera import decode_pose, encode_pose, matrix_to_quaternion, quaternion_to_matrix
from pipeline.teachers.vggt.config import RELEASED_1B, ROOMS, ImageMode
from pipeline.teachers.vggt.images import image_rule, to_input
from pipeline.teachers.vggt.losses import camera_loss, map_loss
from pipeline.teachers.vggt.matching import matching_loss, matching_share, pairs, token_places
from pipeline.teachers.vggt.model import VGGT
from pipeline.teachers.vggt.targets import collate


@pytest.fixture(scope="module")
def model() -> VGGT:
    network = VGGT(ROOMS)
    initialise(network, 3)
    return network.eval()


def images(views: int) -> torch.Tensor:
    return to_input(make_scene(views=views).rgb, ROOMS)[None]


@torch.no_grad()
def test_scenes_of_a_batch_do_not_see_each_other(model: VGGT) -> None:
    one, two = images(2), images(4)[:, 2:]
    both = model(torch.cat([one, two]))
    torch.testing.assert_close(both.depth[:1], model(one).depth, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.pose_codes[-1][1:], model(two).pose_codes[-1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_maps_of_some_views_equal_those_of_all(model: VGGT) -> None:
    views = images(3)
    whole, some = model(views), model(views, dense=[2, 0])
    torch.testing.assert_close(some.points, whole.points[:, [2, 0]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(some.pose_codes[-1], whole.pose_codes[-1])
    assert (whole.depth > 0).all()
    assert (whole.points_confidence >= 1).all()


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((968, 1296), TokenGrid(28, 37)),
        ((480, 640), TokenGrid(28, 37)),
        ((1296, 968), TokenGrid(37, 37, (0.0, 88 / 694, 1.0, 606 / 694))),
    ],
)
def test_grid_of_released_size(size: tuple[int, int], grid: TokenGrid) -> None:
    height = round(size[0] * 518 / size[1] / 14) * 14
    found = image_rule(*size, RELEASED_1B)
    if height > 518:
        top = (height - 518) // 2
        grid = TokenGrid(37, 37, (0.0, top / height, 1.0, (top + 518) / height))
    assert found.grid == grid
    assert to_input(np.zeros((1, *size, 3), dtype=np.uint8), RELEASED_1B).shape[-2:] == (found.kept, 518)


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((968, 1296), (0.0, -63 / 392, 1.0, 455 / 392)),
        ((1296, 968), (-63 / 392, 0.0, 455 / 392, 1.0)),
        ((400, 1000), (0.0, -154 / 210, 1.0, 364 / 210)),
        ((500, 500), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_padded_images_are_whole_and_centred_in_white(size: tuple[int, int], window: tuple[float, ...]) -> None:
    config = dataclasses.replace(RELEASED_1B, images="pad")
    rule = image_rule(*size, config)
    assert rule.grid == TokenGrid(37, 37, window)
    found = to_input(np.full((1, *size, 3), 51, dtype=np.uint8), config)[0]
    assert found.shape == (3, 518, 518)
    inside = found[:, -rule.top : rule.height - rule.top, -rule.left : rule.width - rule.left]
    assert inside.shape == (3, rule.height, rule.width)
    assert (inside == 0.2).all()
    assert int((found == 1).sum()) == 3 * (518**2 - rule.height * rule.width)


@pytest.mark.parametrize(("mode", "size"), [("crop", (5, 1000)), ("pad", (5, 1000)), ("pad", (1000, 5))])
def test_thin_images_are_refused(mode: ImageMode, size: tuple[int, int]) -> None:
    with pytest.raises(FrameError, match="too thin"):
        image_rule(*size, dataclasses.replace(RELEASED_1B, images=mode))


def test_pose_code_round_trip() -> None:
    scene = make_scene(views=4)
    extrinsics = torch.from_numpy(np.linalg.inv(scene.record.world_from_camera))
    size = scene.record.image_size
    code = encode_pose(extrinsics, torch.from_numpy(scene.record.intrinsics).expand(4, 3, 3), size)
    found, intrinsics = decode_pose(code, size)
    torch.testing.assert_close(found, extrinsics[:, :3])
    torch.testing.assert_close(intrinsics[0, :2, :2], torch.from_numpy(scene.record.intrinsics[:2, :2]))
    turns = torch.randn(500, 4, dtype=torch.float64)
    matrices = quaternion_to_matrix(turns)
    torch.testing.assert_close(quaternion_to_matrix(matrix_to_quaternion(matrices)), matrices)
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    torch.testing.assert_close(quaternion_to_matrix(matrix_to_quaternion(half_turn)), half_turn)


def test_targets_agree_with_each_other() -> None:
    batch = collate([make_scene("x"), make_scene("y")], dataclasses.replace(ROOMS, output_stride=1))
    assert batch.points.shape == (2, 4, 96, 128, 3)
    assert not batch.valid[:, :, :16, :16].any()
    extrinsics, intrinsics = decode_pose(batch.pose_codes, (96, 128))
    local = torch.einsum("bvij,bvhwj->bvhwi", extrinsics[..., :3], batch.points) + extrinsics[..., None, None, :, 3]
    torch.testing.assert_close(local[..., 2][batch.valid], batch.depth[batch.valid], atol=1e-4, rtol=1e-4)
    distance = [batch.points[b][batch.valid[b]].norm(dim=-1).mean() for b in range(2)]
    torch.testing.assert_close(torch.stack(distance), torch.ones(2))
    torch.testing.assert_close(
        batch.pose_codes[:, 0, :7], torch.tensor([0, 0, 0, 0, 0, 0, 1.0]).expand(2, 7), atol=1e-6, rtol=0
    )
    assert math.isclose(float(intrinsics[0, 0, 0, 0]), 0.9 * 128, rel_tol=1e-5)


def test_matching_knows_the_same_places() -> None:
    batch = collate([make_scene("m", views=3)], ROOMS)
    places, known = token_places(batch, 6, 8)
    assert places.shape == (1, 3 * 48, 3)
    assert not known.view(3, 6, 8)[:, 0, 0].any()
    same, comparable = pairs(places, known, 3)
    assert not comparable[0, :48, :48].any()
    assert same.any()
    assert torch.equal(same, same.transpose(1, 2))
    # A code of the place itself matches nearly everything, noise matches nearly nothing, and the loss says so.
    waves = torch.cat([torch.sin(places * f) for f in (1, 2, 4)] + [torch.cos(places * f) for f in (1, 2, 4)], -1)
    oracle, noise = waves.view(1, 3, 48, -1), torch.randn(1, 3, 48, 18, generator=torch.Generator().manual_seed(0))
    good, chance = matching_share(oracle, batch, (6, 8))
    poor, _ = matching_share(noise, batch, (6, 8))
    assert good > 0.8
    assert poor < 0.2
    assert chance < 0.1
    assert matching_loss(oracle, batch, (6, 8)) < 0.7 * matching_loss(noise, batch, (6, 8))


def test_losses() -> None:
    target = torch.rand(1, 2, 6, 8, 1) + 1
    valid = torch.ones(1, 2, 6, 8, dtype=torch.bool)
    sure = torch.ones(1, 2, 6, 8)
    assert map_loss(target, target, sure, valid) == 0
    wrong = target + 1.0
    torch.testing.assert_close(map_loss(wrong, target, sure, valid), torch.tensor(1.0))
    valid[..., :4] = False
    broken = torch.where(valid[..., None], target, torch.full_like(target, 1e6))
    torch.testing.assert_close(map_loss(broken, target, sure, valid), torch.tensor(0.0))
    assert map_loss(target, target, 2 * sure, valid) < 0
    code = torch.randn(1, 3, 9)
    flipped = torch.cat([code[..., :3], -code[..., 3:7], code[..., 7:]], -1)
    torch.testing.assert_close(camera_loss([code, flipped], code), torch.tensor(0.0))
