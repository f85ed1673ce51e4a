"""Our Pi3 against outputs of the reference network at tiny widths, and Pi3 and Pi3X against the released keys and shapes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline import registry
from pipeline.errors import CheckpointError
from pipeline.nets.pi3.config import RELEASED, Pi3Config, Variant
from pipeline.nets.pi3.heads import image_of, poses_of
from pipeline.nets.pi3.images import to_input
from pipeline.nets.pi3.model import NETWORKS, NOT_BUILT, Pi3

SHARED = Path(os.environ.get("PIPELINE_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = SHARED / "golden" / "pi3"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden data: set PIPELINE_SHARED ({GOLDEN} is missing)")
CASES = sorted(path.parent.name for path in GOLDEN.glob("public/*/io.safetensors"))


def built(case: str) -> tuple[Pi3, dict[str, Tensor]]:
    folder = GOLDEN / "public" / case
    content = json.loads((folder / "config.json").read_text())
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
    weights = load_file(folder / "weights.safetensors")
    model.load_state_dict({name.removeprefix("weights/"): value for name, value in weights.items()}, strict=True)
    return model, load_file(folder / "io.safetensors")


def close(actual: Tensor, expected: Tensor, what: str) -> None:
    assert actual.shape == expected.shape, what
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= 2e-5, f"{what}: relative to the largest value the error is {error:.2e}"


def test_there_are_cases() -> None:
    assert len(CASES) >= 2


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_trunk(case: str) -> None:
    model, found = built(case)
    images = found["input/images"]
    close(model.patch_tokens(images), found["output/encoder"], "encoder")
    layers = model(images, keep=range(model.config.layers))
    for layer in range(model.config.layers):
        pair = [found[f"output/block_{2 * layer + i}"] for i in range(2)]
        close(layers[layer].flatten(0, 1), torch.cat(pair, dim=-1), f"layer {layer}")
    (last,) = model(images).values()
    close(last.flatten(0, 1), found["output/decode"], "decode")


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_heads(case: str) -> None:
    model, found = built(case)
    tokens, patch = found["output/decode"], model.config.patch
    height, width = found["input/images"].shape[-2:]
    grid = (height // patch, width // patch)
    points = image_of(model.local_points(tokens, grid), grid, patch)
    logits = image_of(model.confidence_logits(tokens, grid), grid, patch)
    pose = poses_of(model.camera(tokens, grid))
    close(points[None], found["output/local_points"], "local points")
    close(logits[None], found["output/conf"], "confidence")
    close(pose[None], found["output/camera_poses"], "poses")
    world = torch.einsum("vij,vhwj->vhwi", pose[:, :3, :3], points) + pose[:, None, None, :3, 3]
    close(world[None], found["output/points"], "points")


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_low_resolution_is_the_mean_of_the_maps(case: str) -> None:
    model, found = built(case)
    views = found["input/images"].shape[1]
    grid = tuple(side // 14 for side in found["input/images"].shape[-2:])
    said = model.predict(found["output/decode"].unflatten(0, (1, views)), (grid[0], grid[1]))
    depth = found["output/local_points"][..., 2].unflatten(-1, (-1, 14)).unflatten(-3, (-1, 14)).mean((-1, -3))
    sure = found["output/conf"][..., 0].sigmoid().unflatten(-1, (-1, 14)).unflatten(-3, (-1, 14)).mean((-1, -3))
    close(said.depth, depth, "depth")
    close(said.confidence, sure, "confidence")
    close(poses_of(said.camera), found["output/camera_poses"], "poses")


@pytest.mark.parametrize(("variant", "tensors", "numbers"), [("pi3", 1210, 958_696_738), ("pi3x", 1873, 1_360_032_439)])
def test_released_names_and_shapes(variant: Variant, tensors: int, numbers: int) -> None:
    released = json.loads((GOLDEN / f"keys_{variant}.json").read_text())
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
    released = json.loads((GOLDEN / f"keys_{variant}.json").read_text())
    options = {"checkpoint": str(tmp_path / "model.safetensors"), "variant": variant}
    teacher = registry.create("teachers", {"name": variant, "kind": "pi3", "options": options})
    hollow_file(tmp_path / "model.safetensors", released)
    assert (tmp_path / "model.safetensors").stat().st_blocks * 512 < 2**20, "the numbers take no room"
    teacher.check_weights()
    partial = {name: shape for name, shape in released.items() if name != "conf_decoder.linear_out.bias"}
    hollow_file(tmp_path / "model.safetensors", partial)
    with pytest.raises(CheckpointError, match=r"1 missing, first 'conf_decoder\.linear_out\.bias'"):
        teacher.check_weights()


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """The formula picture of preprocess.json, uint8 (H,W,3)."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((x * (3 + c) + y * (5 + 2 * c) + (((x // 7) * (y // 5)) % 97) + seed * 31) // 2 % 256).astype(np.uint8)


def test_preprocessing() -> None:
    cases = json.loads((GOLDEN / "public" / "preprocess.json").read_text())["cases"]
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
