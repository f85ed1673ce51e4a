"""FLARE against outputs of the reference network at tiny widths, and against the released model's names and shapes."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_data import Run, cases, picture, read_json
from torch import Tensor

from pipeline.teachers.flare import TENSOR_BYTES
from pipeline.teachers.flare.config import RELEASED, FLAREConfig
from pipeline.teachers.flare.images import image_rule, to_input
from pipeline.teachers.flare.model import ALL_FEATURE_LAYERS, FLARE
from pipeline.teachers.flare.pose import camera_numbers
from pipeline.teachers.flare.weights import NOT_BUILT, check_shapes

CASES = cases("flare/public/public_*", again=True)


def config_of(content: dict[str, Any]) -> FLAREConfig:
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


def built(case: Path) -> tuple[FLARE, Run]:
    run = Run(case, tolerance=5e-5)
    model = FLARE(config_of(run.config)).eval()
    weights = run.weights({name: value.shape for name, value in model.entries().items()})
    assert set(weights) == set(model.entries())
    model.load_entries(weights)
    return model, run


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_every_stage(case: Path) -> None:
    """All outputs of the reference run, each stage fed by the one before, and the tokens of the whole network."""
    model, run = built(case)
    assert model.coarse is not None and model.fine is not None and model.point is not None  # noqa: PT018 - for the type checker
    left = run.outputs - {"pos_fine", "pos_coarse"}

    def check(name: str, value: Tensor) -> None:
        run.check(name, value)
        left.discard(name)

    feature_layers = model(run.images)
    assert list(feature_layers) == list(ALL_FEATURE_LAYERS)
    for feature_layer, value in feature_layers.items():
        check(feature_layer, value)
    inputs = frozenset(int(name.rsplit("_", 1)[1]) for name in left if name.startswith("enc_block_input_"))
    encoded = model.encoder(run.images, inputs)
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
    assert not left, f"outputs that nothing was compared with: {sorted(left)}"


@pytest.mark.parametrize("case", CASES)
def test_positions(case: Path) -> None:
    """The rotary tables turn by the reference's positions."""
    model, run = built(case)
    assert model.coarse
    config = model.config
    rows, cols = config.image_height // config.patch, config.image_width // config.patch
    for rotary, grid, name in (
        (model.encoder.rotary, (rows, cols), "fine"),
        (model.coarse.rotary, (rows // config.coarse, cols // config.coarse), "coarse"),
    ):
        cosine, sine = rotary(0, *grid, 1, torch.device("cpu"))
        angle = torch.atan2(sine, cosine)[:, [0, rotary.head_dim // 2]]
        expected = run.output(f"pos_{name}")[0, 0].float()
        torch.testing.assert_close(angle, torch.atan2(expected.sin(), expected.cos()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_tap_alone_is_the_same(case: Path) -> None:
    model, run = built(case)
    for feature_layer in ALL_FEATURE_LAYERS:
        alone = FLARE(model.config, (feature_layer,)).eval()
        alone.load_entries(model.entries())
        result = alone(run.images)
        assert list(result) == [feature_layer]
        run.check(feature_layer, result[feature_layer])


def test_released_names_and_shapes() -> None:
    released: dict[str, Any] = read_json("flare/keys_geometry_pose.json")
    needed = read_json("flare/keys_needed_for_taps.json")
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


def test_preprocessing() -> None:
    cases = read_json("flare/public/preprocess.json")["cases"]
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
