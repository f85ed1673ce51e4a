"""Our VGGT against outputs of the reference network at tiny widths, and against the released checkpoint's keys and shapes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.nets.vggt.camera import CameraHead, decode_pose, encode_pose
from pipeline.nets.vggt.config import RELEASED_1B, VGGTConfig
from pipeline.nets.vggt.images import to_input
from pipeline.nets.vggt.model import NOT_BUILT, VGGT

SHARED = Path(os.environ.get("PIPELINE_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = SHARED / "golden" / "vggt"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden data: set PIPELINE_SHARED ({GOLDEN} is missing)")
CASES = ("public_a", "public_b")


def config_of(case: str) -> VGGTConfig:
    content = json.loads((GOLDEN / "public" / case / "config.json").read_text())
    dense = content["dpt"]
    return VGGTConfig(
        image_px=content["img_size"],
        patch=content["patch_size"],
        width=content["embed_dim"],
        encoder_depth=content["dino"]["depth"],
        encoder_heads=content["dino"]["num_heads"],
        depth=content["depth"],
        heads=content["num_heads"],
        registers=content["num_register_tokens"],
        rope_base=content["rope_freq"],
        camera_depth=content["camera_head"]["trunk_depth"],
        camera_heads=content["camera_head"]["num_heads"],
        camera_iterations=content["camera_head"]["num_iterations"],
        dpt_features=dense["features"],
        dpt_channels=tuple(dense["out_channels"]),
        dpt_layers=tuple(dense["intermediate_layer_idx"]),
    )


def tensors(case: str) -> dict[str, Tensor]:
    folder = GOLDEN / "public" / case
    return load_file(folder / "aggregator.safetensors") | load_file(folder / "heads.safetensors")


def built(case: str) -> tuple[VGGT, dict[str, Tensor]]:
    found = tensors(case)
    model = VGGT(config_of(case)).eval()
    weights = {name.removeprefix("weights/"): value for name, value in found.items() if name.startswith("weights/")}
    model.load_state_dict(weights, strict=True)
    return model, found


def close(actual: Tensor, expected: Tensor, what: str) -> None:
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= 2e-5, f"{what}: relative to the largest value the error is {error:.2e}"


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_aggregator(case: str) -> None:
    model, found = built(case)
    images = found["input/images"]
    close(model.aggregator.patch_tokens(images), found["output/patch_embed"], "patch_embed")
    layers = model.aggregator(images, keep=range(model.config.depth))
    assert sorted(layers) == list(range(model.config.depth))
    for layer, value in layers.items():
        close(value, found[f"output/layer_{layer}"], f"layer {layer}")
    only = model.aggregator(images, keep=(-1,))
    assert list(only) == [model.config.depth - 1]
    close(only[model.config.depth - 1], layers[model.config.depth - 1], "last layer alone")


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_heads(case: str) -> None:
    model, found = built(case)
    layers = {i: found[f"output/layer_{i}"] for i in range(model.config.depth)}
    size = tuple(found["input/images"].shape[-2:])
    for number, code in enumerate(model.camera_head(layers[model.config.depth - 1][:, :, 0])):
        close(code, found[f"output/pose_enc_iter_{number}"], f"pose code {number}")
    depth, confidence = model.depth_head(layers, size)
    close(depth, found["output/depth"], "depth")
    close(confidence, found["output/depth_conf"], "depth confidence")
    points, confidence = model.point_head(layers, size)
    close(points, found["output/world_points"], "points")
    close(confidence, found["output/world_points_conf"], "point confidence")


def test_pose_code() -> None:
    found = load_file(GOLDEN / "public" / "pose_codec.safetensors")
    height, width = (int(v) for v in found["input/image_size_hw"])
    extrinsics, intrinsics = decode_pose(found["input/pose_enc"], (height, width))
    close(extrinsics, found["output/extrinsics"], "extrinsics")
    close(intrinsics, found["output/intrinsics"], "intrinsics")
    code = encode_pose(found["output/extrinsics"], found["output/intrinsics"], (height, width))
    close(code, found["output/pose_enc_roundtrip"], "code")


def test_released_names_and_shapes() -> None:
    released: dict[str, Any] = json.loads((GOLDEN / "keys_1b.json").read_text())
    with torch.device("meta"):
        model = VGGT(RELEASED_1B)
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert ours == {name: shape for name, shape in released.items() if not name.startswith(NOT_BUILT)}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts["aggregator"] == 909_112_320
    assert sum(counts.values()) == 1_256_537_516 - 65_941_396
    assert isinstance(model.camera_head, CameraHead)


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """The formula picture of preprocess.json, uint8 (H,W,3)."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((x * (3 + c) + y * (5 + 2 * c) + (((x // 7) * (y // 5)) % 97) + seed * 31) // 2 % 256).astype(np.uint8)


def test_preprocessing() -> None:
    cases = json.loads((GOLDEN / "public" / "preprocess.json").read_text())["cases"]
    plain = [c for c in cases if len(c["images"]) == 1 and not c["images"][0]["alpha"]]
    assert {case["mode"] for case in plain} == {"crop", "pad"}
    for case in plain:
        image, config = case["images"][0], replace(RELEASED_1B, images=case["mode"])
        found = to_input(picture(image["width"], image["height"], image["seed"])[None], config)
        assert list(found.shape) == case["expected_shape"], case["name"]
        assert abs(float(found.double().mean()) - case["expected_mean"]) < 1e-3, case["name"]
        for n, c, y, x, value in case["sampled_pixels_n_c_y_x_uint8"]:
            assert abs(round(float(found[n, c, y, x]) * 255) - value) <= 1, case["name"]
