"""Pi3 against outputs of the reference network at tiny widths, and Pi3 and Pi3X against the released keys and shapes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_data import Run, cases, close, picture, read_json

from pipeline.core import registry
from pipeline.core.errors import CheckpointError
from pipeline.teachers.pi3.config import RELEASED, Pi3Config, Variant
from pipeline.teachers.pi3.heads import poses_of
from pipeline.teachers.pi3.images import to_input
from pipeline.teachers.pi3.model import NETWORKS, NOT_BUILT, Pi3

CASES = cases("pi3/public/public_*", again=True)


def built(case: Path) -> tuple[Pi3, Run]:
    run = Run(case)
    content = run.config
    head = content["head_decoder"]
    assert head["out_dim"] == head["dim"], "as in the released size"
    config = Pi3Config(
        image_px=content["img_size"],
        patch=content["patch_size"],
        width=content["embed_dim"],
        encoder_depth=content["encoder"]["depth"],
        encoder_heads=content["encoder"]["num_heads"],
        depth=content["decoder_depth"],
        heads=content["decoder_heads"],
        registers=content["decoder_register_tokens"],
        rope_base=content["rope_base"],
        head_width=head["dim"],
        head_depth=head["depth"],
        head_heads=head["num_heads"],
        camera_width=head["camera_out_dim"],
    )
    model = Pi3(config).eval()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(run.weights(shapes), strict=True)
    return model, run


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_trunk(case: Path) -> None:
    model, run = built(case)
    run.check("encoder", model.patch_tokens(run.images))
    layers = model(run.images, keep=range(model.config.layers))
    for layer in range(model.config.layers):
        for number, block in enumerate(layers[layer].flatten(0, 1).chunk(2, dim=-1)):
            run.check(f"block_{2 * layer + number}", block)
    (last,) = model(run.images).values()
    run.check("decode", last.flatten(0, 1))


def image_of(pixels: torch.Tensor, grid: tuple[int, int], patch: int) -> torch.Tensor:
    """Pixels by patch (v, gh*gw, patch*patch, c) -> image (v, gh*patch, gw*patch, c)."""
    cells = pixels.unflatten(-2, (patch, patch)).unflatten(-4, grid)
    return cells.transpose(-4, -3).flatten(-5, -4).flatten(-3, -2)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_heads(case: Path) -> None:
    """Maps of full size, and what is predicted per token: the mean of each token's pixels."""
    model, run = built(case)
    (trunk,) = model(run.images).values()
    tokens, patch = trunk.flatten(0, 1), model.config.patch
    height, width = run.images.shape[-2:]
    grid = (height // patch, width // patch)
    points = image_of(model.local_points(tokens, grid), grid, patch)
    logits = image_of(model.confidence_logits(tokens, grid), grid, patch)
    pose = poses_of(model.camera(tokens, grid))
    run.check("local_points", points[None])
    run.check("conf", logits[None])
    run.check("camera_poses", pose[None])
    world = torch.einsum("vij,vhwj->vhwi", pose[:, :3, :3], points) + pose[:, None, None, :3, 3]
    run.check("points", world[None])
    said = model.predict(trunk, grid)
    depth = points[..., 2].unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch)).mean((-1, -3))
    sure = logits[..., 0].sigmoid().unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch)).mean((-1, -3))
    close(said.depth, depth[None], "depth")
    close(said.confidence, sure[None], "confidence")
    run.check("camera_poses", poses_of(said.camera))


@pytest.mark.parametrize(("variant", "tensors", "numbers"), [("pi3", 1210, 958_696_738), ("pi3x", 1873, 1_360_032_439)])
def test_released_names_and_shapes(variant: Variant, tensors: int, numbers: int) -> None:
    released = read_json(f"pi3/keys_{variant}.json")
    assert len(released) == tensors
    assert sum(math.prod(shape) for shape in released.values()) == numbers
    with torch.device("meta"):
        model = NETWORKS[variant](RELEASED)
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert ours == {name: shape for name, shape in released.items() if not name.startswith(NOT_BUILT[variant])}


def hollow_file(path: Path, shapes: dict[str, list[int]]) -> None:
    """FAKED for the tests below: a safetensors file of the released names and shapes whose numbers are a hole in the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


@pytest.mark.parametrize("variant", ["pi3", "pi3x"])
def test_a_file_of_the_released_names_and_shapes_passes_the_check(variant: Variant, tmp_path: Path) -> None:
    released = read_json(f"pi3/keys_{variant}.json")
    options = {"checkpoint": str(tmp_path / "model.safetensors"), "variant": variant}
    teacher = registry.create("teachers", {"name": variant, "kind": "pi3", "options": options})
    hollow_file(tmp_path / "model.safetensors", released)
    assert (tmp_path / "model.safetensors").stat().st_blocks * 512 < 2**20, "the numbers take no room"
    teacher.check_weights()
    partial = {name: shape for name, shape in released.items() if name != "conf_decoder.linear_out.bias"}
    hollow_file(tmp_path / "model.safetensors", partial)
    with pytest.raises(CheckpointError, match=r"1 missing, first 'conf_decoder\.linear_out\.bias'"):
        teacher.check_weights()


def test_preprocessing() -> None:
    cases = read_json("pi3/public/preprocess.json")["cases"]
    assert cases
    for case in cases:
        views = np.stack([picture(image["width"], image["height"], image["seed"]) for image in case["images"]])
        found = to_input(views, RELEASED)
        assert list(found.shape) == case["expected_shape"], case["name"]
        assert float(found.double().mean()) == pytest.approx(case["expected_mean"], abs=1e-6)
        pixels = (found * 255).round().to(torch.uint8).numpy()
        for n, c, y, x, value in case["sampled_pixels_n_c_y_x_uint8"]:
            assert pixels[n, c, y, x] == value, case["name"]
        assert hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() == case["sha256_uint8_nchw"], case["name"]
