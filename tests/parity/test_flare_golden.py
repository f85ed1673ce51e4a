"""Our FLARE against outputs of the reference network at tiny widths, and against the released model's names and shapes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.nets.flare.config import RELEASED, FLAREConfig
from pipeline.nets.flare.images import image_rule, to_input
from pipeline.nets.flare.model import ALL_TAPS, FLARE
from pipeline.nets.flare.pose import camera_numbers
from pipeline.nets.flare.weights import NOT_BUILT, check_shapes
from pipeline.teachers.flare import TENSOR_BYTES

SHARED = Path(os.environ.get("PIPELINE_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = SHARED / "golden" / "flare"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden data: set PIPELINE_SHARED ({GOLDEN} is missing)")
CASES = ("public_a", "public_b")


def config_of(case: str) -> FLAREConfig:
    content = json.loads((GOLDEN / "public" / case / "config.json").read_text())
    pose = content["pose_head"]
    config = FLAREConfig(
        image_height=content["height"],
        image_width=content["width"],
        patch=content["patch_size"],
        coarse=content["coarse_factor"],
        width=content["enc_embed_dim"],
        depth=content["enc_depth"],
        heads=content["enc_num_heads"],
        decoder_width=content["dec_embed_dim"],
        decoder_depth=content["dec_depth"],
        decoder_heads=content["dec_num_heads"],
        mlp_ratio=content["mlp_ratio_transformer"],
        inject=tuple(content["inject_blocks"]),
        rope_base=content["rope_base"],
        pose_depth=pose["trunk_depth"],
        pose_heads=pose["num_heads"],
        pose_mlp_ratio=content["mlp_ratio_pose_trunk"],
        pose_iterations=pose["iterations"],
    )
    assert config.harmonics == pose["n_harmonics"]
    return config


def built(case: str) -> tuple[FLARE, dict[str, Tensor]]:
    folder = GOLDEN / "public" / case
    model = FLARE(config_of(case)).eval()
    weights = {name.removeprefix("weights/"): value for name, value in load_file(folder / "weights.safetensors").items()}
    assert set(weights) == set(model.entries())
    model.load_entries(weights)
    return model, load_file(folder / "io.safetensors")


def close(actual: Tensor, expected: Tensor, what: str) -> None:
    assert actual.shape == expected.shape, what
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= 5e-5, f"{what}: relative to the largest value the error is {error:.2e}"


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_taps(case: str) -> None:
    model, found = built(case)
    taps = model(found["input/images"])
    assert list(taps) == list(ALL_TAPS)
    for tap, value in taps.items():
        close(value, found[f"output/{tap}"], tap)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_every_stage(case: str) -> None:
    """All intermediate outputs of the golden data, each stage fed by the one before."""
    model, found = built(case)
    assert model.coarse is not None and model.fine is not None and model.point is not None  # noqa: PT018 - for the type checker
    seen = (
        {name.removeprefix("output/") for name in found if name.startswith("output/")}
        - set(ALL_TAPS)
        - {"pos_fine", "pos_coarse"}
    )

    def check(name: str, value: Tensor) -> None:
        close(value, found[f"output/{name}"], name)
        seen.discard(name)

    inputs = frozenset(int(name.rsplit("_", 1)[1]) for name in seen if name.startswith("enc_block_input_"))
    encoded = model.encoder(found["input/images"], inputs)
    for number, value in encoded.inputs.items():
        check(f"enc_block_input_{number}", value)
    check("coarse_tokens", model.coarse.tokens(encoded))
    coarse = model.coarse(encoded)
    check("coarse_pose_tokens", coarse.pose_tokens)
    check("camera_embed_fine", camera_numbers(coarse.cameras[-1]))
    fine = model.fine(encoded, coarse.cameras[-1], keep_all=True)
    posed = model.point.cameras(fine)
    check("fine_pose_tokens", posed.pose_tokens)
    check("camera_embed_point", camera_numbers(posed.cameras[-1]))
    for number in range(model.config.pose_iterations):
        check(f"coarse_camera_iter_{number}", coarse.cameras[number])
        check(f"fine_camera_iter_{number}", posed.cameras[number])
    points = list(model.point.steps(encoded, fine, model.fine.embedded(posed.cameras[-1])))
    for number in range(model.config.decoder_depth - 1):
        check(f"fine_{number}", fine.layers[number])
        check(f"point_{number}", points[number])
    assert not seen, f"golden outputs that nothing was compared with: {sorted(seen)}"


@pytest.mark.parametrize("case", CASES)
def test_positions(case: str) -> None:
    """The rotary tables turn by the golden data's positions."""
    model, found = built(case)
    assert model.coarse
    config = model.config
    rows, cols = config.image_height // config.patch, config.image_width // config.patch
    for rotary, grid, name in (
        (model.encoder.rotary, (rows, cols), "fine"),
        (model.coarse.rotary, (rows // config.coarse, cols // config.coarse), "coarse"),
    ):
        cosine, sine = rotary(0, *grid, 1, torch.device("cpu"))
        angle = torch.atan2(sine, cosine)[:, [0, rotary.head_dim // 2]]
        expected = found[f"output/pos_{name}"][0, 0].float()
        torch.testing.assert_close(angle, torch.atan2(expected.sin(), expected.cos()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_tap_alone_is_the_same(case: str) -> None:
    model, found = built(case)
    for tap in ALL_TAPS:
        alone = FLARE(model.config, (tap,)).eval()
        alone.load_entries(model.entries())
        result = alone(found["input/images"])
        assert list(result) == [tap]
        close(result[tap], found[f"output/{tap}"], tap)


def test_released_names_and_shapes() -> None:
    released: dict[str, Any] = json.loads((GOLDEN / "keys_geometry_pose.json").read_text())
    needed = json.loads((GOLDEN / "keys_needed_for_taps.json").read_text())
    with torch.device("meta"):
        ours = {name: list(value.shape) for name, value in FLARE(RELEASED).entries().items()}
    assert ours == {name: released[name] for name in needed["keys"]}
    assert sum(int(np.prod(shape)) for shape in ours.values()) == needed["parameters"]
    rest = set(released) - set(ours)
    assert all(name.startswith(NOT_BUILT) for name in rest)
    assert not any(name.startswith(NOT_BUILT) for name in ours)
    assert all(any(name.startswith(prefix) for name in rest) for prefix in NOT_BUILT), "a prefix that no released name has"
    assert check_shapes(released, RELEASED, where="keys_geometry_pose.json", fix="") == []
    # The heads' layers 1 to 4 are registered a second time under layer_rn.
    assert 4 * sum(math.prod(shape) for name, shape in released.items() if ".layer_rn." not in name) == TENSOR_BYTES


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """The formula picture of preprocess.json, uint8 (H,W,3)."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((x * (3 + c) + y * (5 + 2 * c) + (((x // 7) * (y // 5)) % 97) + seed * 31) // 2 % 256).astype(np.uint8)


def test_preprocessing() -> None:
    cases = json.loads((GOLDEN / "public" / "preprocess.json").read_text())["cases"]
    assert cases
    for case in cases:
        found = to_input(picture(case["width"], case["height"], case["seed"])[None], RELEASED)
        assert list(found.shape) == case["expected_shape"], case["name"]
        levels = (found * 255).round().to(torch.uint8).numpy()
        for n, c, y, x, value in case["sampled_pixels_n_c_y_x_uint8"]:
            assert levels[n, c, y, x] == value, case["name"]
        assert hashlib.sha256(levels.tobytes()).hexdigest() == case["sha256_uint8_nchw"], case["name"]
        seen_by_network = (found.double() - 0.5) / 0.5
        assert abs(float(seen_by_network.mean()) - case["expected_mean"]) < 1e-6, case["name"]
        grid = image_rule(case["height"], case["width"], RELEASED).grid
        assert (grid.rows, grid.cols) == (24, 32)
