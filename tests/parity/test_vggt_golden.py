"""VGGT against outputs of the reference network at tiny widths, and against the released checkpoint's keys and shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_data import VECTORS, Run, cases, close, picture, read_json, read_tensors

from pipeline.teachers.vggt.camera import CameraHead, decode_pose, encode_pose
from pipeline.teachers.vggt.config import RELEASED_1B, VGGTConfig
from pipeline.teachers.vggt.images import to_input
from pipeline.teachers.vggt.model import NOT_BUILT, VGGT

CASES = cases("vggt/public/public_*", again=True)


def config_of(content: dict[str, Any]) -> VGGTConfig:
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


def built(case: Path) -> tuple[VGGT, Run]:
    run = Run(case)
    model = VGGT(config_of(run.config)).eval()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(run.weights(shapes), strict=True)
    return model, run


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_aggregator(case: Path) -> None:
    model, run = built(case)
    run.check("patch_embed", model.aggregator.patch_tokens(run.images))
    layers = model.aggregator(run.images, keep=range(model.config.depth))
    assert sorted(layers) == list(range(model.config.depth))
    for layer, value in layers.items():
        run.check(f"layer_{layer}", value)
    only = model.aggregator(run.images, keep=(-1,))
    assert list(only) == [model.config.depth - 1]
    run.check(f"layer_{model.config.depth - 1}", only[model.config.depth - 1])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_heads(case: Path) -> None:
    model, run = built(case)
    layers = model.aggregator(run.images, keep=range(model.config.depth))
    size = (run.images.shape[-2], run.images.shape[-1])
    for number, code in enumerate(model.camera_head(layers[model.config.depth - 1][:, :, 0])):
        run.check(f"pose_enc_iter_{number}", code)
    for name, head in (("depth", model.depth_head), ("world_points", model.point_head)):
        values, confidence = head(layers, size)
        run.check(name, values)
        run.check(f"{name}_conf", confidence)


def test_pose_code() -> None:
    found, _ = read_tensors(VECTORS / "vggt" / "public" / "pose_codec.safetensors")
    height, width = (int(v) for v in found["input/image_size_hw"])
    extrinsics, intrinsics = decode_pose(found["input/pose_enc"], (height, width))
    close(extrinsics, found["output/extrinsics"], "extrinsics")
    close(intrinsics, found["output/intrinsics"], "intrinsics")
    code = encode_pose(found["output/extrinsics"], found["output/intrinsics"], (height, width))
    close(code, found["output/pose_enc_roundtrip"], "code")


def test_released_names_and_shapes() -> None:
    released: dict[str, Any] = read_json("vggt/keys_1b.json")
    with torch.device("meta"):
        model = VGGT(RELEASED_1B)
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert ours == {name: shape for name, shape in released.items() if not name.startswith(NOT_BUILT)}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts["aggregator"] == 909_112_320
    assert sum(counts.values()) == 1_256_537_516 - 65_941_396
    assert isinstance(model.camera_head, CameraHead)


def test_preprocessing() -> None:
    cases = read_json("vggt/public/preprocess.json")["cases"]
    plain = [c for c in cases if len(c["images"]) == 1 and not c["images"][0]["alpha"]]
    assert {case["mode"] for case in plain} == {"crop", "pad"}
    for case in plain:
        image, config = case["images"][0], replace(RELEASED_1B, images=case["mode"])
        found = to_input(picture(image["width"], image["height"], image["seed"])[None], config)
        assert list(found.shape) == case["expected_shape"], case["name"]
        assert abs(float(found.double().mean()) - case["expected_mean"]) < 1e-3, case["name"]
        for n, c, y, x, value in case["sampled_pixels_n_c_y_x_uint8"]:
            assert abs(round(float(found[n, c, y, x]) * 255) - value) <= 1, case["name"]
