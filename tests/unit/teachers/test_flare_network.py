"""The FLARE network's own properties; equality with the reference is in tests/parity/test_flare_golden.py."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from box_rooms import make_scene

from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.flare.config import RELEASED, TINY
from pipeline.teachers.flare.images import image_rule, to_input
from pipeline.teachers.flare.model import FLARE
from pipeline.teachers.flare.pose import FOCAL_MAX, FOCAL_MIN, PoseHead, camera_numbers
from pipeline.teachers.flare.weights import untrained


@pytest.fixture(scope="module")
def model() -> FLARE:
    return untrained(TINY, ("enc_norm", "dec_norm_fine", "dec_norm_point"), 3).eval()


def images(views: int) -> torch.Tensor:
    return to_input(make_scene(views=views).rgb, TINY)[None]


@torch.no_grad()
def test_views_see_each_other_in_the_decoders_only(model: FLARE) -> None:
    views = images(3)
    changed = torch.cat([views[:, :2], 1 - views[:, 2:]], dim=1)
    plain, other = model(views), model(changed)
    torch.testing.assert_close(other["enc_norm"][:, :2], plain["enc_norm"][:, :2], atol=1e-5, rtol=1e-5)
    for feature_layer in ("dec_norm_fine", "dec_norm_point"):
        assert (other[feature_layer][:, :2] - plain[feature_layer][:, :2]).abs().max() > 1e-2


def test_only_needed_stages_exist() -> None:
    names = {
        feature_layer: set(FLARE(TINY, (feature_layer,)).entries())
        for feature_layer in ("enc_norm", "dec_norm_fine", "dec_norm_point")
    }
    assert names["enc_norm"] < names["dec_norm_fine"] < names["dec_norm_point"]
    assert all(name.startswith(("patch_embed.", "enc_blocks.", "enc_norm.")) for name in names["enc_norm"])
    assert not any(("stage2" in name and "pose_head" in name) or "point" in name for name in names["dec_norm_fine"])
    assert names["dec_norm_point"] == set(FLARE(TINY).entries())


def test_random_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = untrained(TINY, ("dec_norm_fine",), 5).entries()
    torch.manual_seed(2)
    again, other = untrained(TINY, ("dec_norm_fine",), 5).entries(), untrained(TINY, ("dec_norm_fine",), 6).entries()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pose_token_ref"], other["pose_token_ref"])
    assert not torch.equal(first["cam_cond_encoder.0.attn.in_proj_weight"], other["cam_cond_encoder.0.attn.in_proj_weight"])
    assert not torch.equal(first["pose_token_ref"], first["pose_token_source"])


@torch.no_grad()
def test_cameras() -> None:
    head = PoseHead(dataclasses.replace(RELEASED, decoder_width=72, pose_heads=4, pose_depth=1))
    assert head.pose_proj.in_features == 9 * (2 * 4 + 1)
    torch.nn.init.normal_(head.pose_branch.fc2.bias, std=30)
    tokens = torch.randn(2, 5, 72)
    cameras = head(tokens)
    assert len(cameras) == 4
    focal = torch.stack(cameras)[..., 7:]
    assert ((focal >= FOCAL_MIN) & (focal <= FOCAL_MAX)).all()
    numbers = camera_numbers(cameras[-1])
    assert numbers.shape == (2, 5, 7)
    torch.testing.assert_close(numbers[..., :4], cameras[-1][..., 3:7])
    torch.testing.assert_close(numbers[..., 4:].norm(dim=-1).mean(1), torch.ones(2))
    far = cameras[-1].clone()
    far[..., :3] *= 100
    torch.testing.assert_close(camera_numbers(far), numbers)


@torch.no_grad()
def test_harmonics_are_shifted_sines_in_float32() -> None:
    """At the released size's 42 frequencies a cosine would be another number: float32 cannot hold z + pi/2 for large z."""
    head = PoseHead(dataclasses.replace(RELEASED, pose_depth=1))
    code = torch.randn(1, 2, 9, generator=torch.Generator().manual_seed(0))
    sines, shifted, last = head._waves(code).split([378, 378, 9], dim=-1)
    assert torch.equal(last, code)
    for digit, power in ((0, 0), (3, 7), (8, 41)):
        angle = code[..., digit] * torch.tensor(2.0**power)
        assert torch.equal(sines[..., digit * 42 + power], angle.sin())
        assert torch.equal(shifted[..., digit * 42 + power], (angle + math.pi / 2).sin())
    cosines = (code[..., None] * 2.0 ** torch.arange(42)).cos().flatten(-2)
    off = (shifted - cosines).abs().unflatten(-1, (9, 42)).amax((0, 1, 2))
    assert off[:10].max() < 1e-3
    assert off[30:].min() > 0.1


@torch.no_grad()
def test_the_released_size_fits_together_without_numbers() -> None:
    """Shapes of a forward pass on the meta device, which allocates and computes nothing."""
    with torch.device("meta"):
        network, views = FLARE(RELEASED), torch.zeros(1, 2, 3, 384, 512)
    shapes = {feature_layer: tuple(value.shape) for feature_layer, value in network(views).items()}
    assert shapes == {"enc_norm": (1, 2, 768, 1024), "dec_norm_fine": (1, 2, 768, 768), "dec_norm_point": (1, 2, 768, 768)}


@torch.no_grad()
def test_the_pose_head_ignores_autocast() -> None:
    head = PoseHead(dataclasses.replace(RELEASED, decoder_width=72, pose_heads=4, pose_depth=1))
    tokens = torch.randn(1, 3, 72)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(tokens)
    for number, camera in enumerate(head(tokens)):
        assert torch.equal(inside[number], camera)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((968, 1296), TokenGrid(24, 32, (1 / 514, 0.0, 513 / 514, 1.0))),
        ((480, 640), TokenGrid(24, 32)),
        ((384, 512), TokenGrid(24, 32)),
        ((640, 480), TokenGrid(24, 32, (0.0, 149 / 682, 1.0, 533 / 682))),
        ((300, 1200), TokenGrid(24, 32, (512 / 1536, 0.0, 1024 / 1536, 1.0))),
        ((1080, 1920), TokenGrid(24, 32, (85 / 682, 0.0, 597 / 682, 1.0))),
    ],
)
def test_grid_of_released_size(size: tuple[int, int], grid: TokenGrid) -> None:
    assert image_rule(*size, RELEASED).grid == grid
    assert to_input(np.zeros((1, *size, 3), dtype=np.uint8), RELEASED).shape == (1, 3, 384, 512)


def test_every_image_is_covered() -> None:
    """Whatever the size, the resized image is at least as large as what is cut out of it, and the cut lies inside."""
    random = np.random.default_rng(0)
    for height, width in random.integers(8, 4000, size=(2000, 2)):
        rule = image_rule(int(height), int(width), RELEASED)
        assert 0 <= rule.top <= rule.height - 384
        assert 0 <= rule.left <= rule.width - 512
        assert abs(2 * rule.top - (rule.height - 384)) <= 1
        assert abs(2 * rule.left - (rule.width - 512)) <= 1
        assert 384 in (rule.height, rule.height - 1) or 512 in (rule.width, rule.width - 1)


def test_the_window_is_where_the_pixels_come_from() -> None:
    """A picture whose red is the column and green the row tells which part of it was kept."""
    height, width = 300, 700
    rgb = np.zeros((1, height, width, 3), dtype=np.uint8)
    rgb[..., 0] = np.arange(width) / width * 255
    rgb[..., 1] = (np.arange(height) / height * 255)[:, None]
    found, window = to_input(rgb, RELEASED)[0], image_rule(height, width, RELEASED).grid.window
    edges = [float(found[0, :, 0].mean()), float(found[1, 0].mean()), float(found[0, :, -1].mean()), float(found[1, -1].mean())]
    np.testing.assert_allclose(edges, window, atol=0.01)
