"""2D teachers: the same numbers as transformers' own classes on the same pixels, right grids, and checkpoints that do not fit.

Checkpoints are tiny ones with random weights, written by transformers itself, and whole as released (two towers, decoder).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from box_rooms import make_scene
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.core.errors import CheckpointError, ConfigError, FrameError
from pipeline.core.registry import create
from pipeline.scenes.types import Scene
from pipeline.teachers._vision2d import Vision2DTeacher
from pipeline.teachers._vision2d.layouts import LAYOUTS
from pipeline.teachers._vision2d.tiny import tiny_vision

KINDS = {
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "dinov3_vit": "dinov3",
    "siglip_vision_model": "siglip2",
    "siglip2_vision_model": "siglip2",
    "clip_vision_model": "clip",
    "vit_mae": "mae",
}
"""Architecture -> teacher kind."""
SIZES = dict.fromkeys(("dinov2", "dinov2_with_registers"), (84, 112))
SIZES |= {"dinov3_vit": (96, 128), "siglip2_vision_model": (96, 128), "vit_mae": (128, 128)}
SIZES |= {"siglip_vision_model": (112, 112), "clip_vision_model": (112, 112)}
"""Input sizes of a 96 x 128 image at ``image_px`` = the tiny size's own."""
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
CLIP = (np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711]))
HALF = (np.full(3, 0.5), np.full(3, 0.5))
PIXELS = {
    "dinov2": (*IMAGENET, Image.Resampling.BICUBIC),
    "dinov2_with_registers": (*IMAGENET, Image.Resampling.BICUBIC),
    "dinov3_vit": (*IMAGENET, Image.Resampling.BILINEAR),
    "siglip_vision_model": (*HALF, Image.Resampling.BILINEAR),
    "siglip2_vision_model": (*HALF, Image.Resampling.BILINEAR),
    "clip_vision_model": (*CLIP, Image.Resampling.BICUBIC),
    "vit_mae": (*IMAGENET, Image.Resampling.BILINEAR),
}
LEAD = {"dinov2": 1, "dinov2_with_registers": 5, "dinov3_vit": 5, "clip_vision_model": 1, "vit_mae": 1}
WHOLE = {
    "siglip_vision_model": ("SiglipModel", "SiglipConfig"),
    "siglip2_vision_model": ("Siglip2Model", "Siglip2Config"),
    "clip_vision_model": ("CLIPModel", "CLIPConfig"),
}
TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8}
TEXT |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


def write_checkpoint(architecture: str, folder: Path, **save: Any) -> None:
    """A tiny checkpoint as released: SigLIP and CLIP with their text tower, MAE with its decoder."""
    tiny = LAYOUTS[architecture].tiny
    torch.manual_seed(3)
    if architecture in WHOLE:
        model_name, config_name = WHOLE[architecture]
        config = getattr(transformers, config_name)(text_config=TEXT, vision_config=tiny)
        model = getattr(transformers, model_name)(config)
    elif architecture == "vit_mae":
        decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
        model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**tiny, **decoder, decoder_intermediate_size=16))
    else:
        model = getattr(transformers, LAYOUTS[architecture].model_class)(
            getattr(transformers, LAYOUTS[architecture].config_class)(**tiny)
        )
    with torch.no_grad():  # position tables of some classes start at (nearly) nothing: make every parameter matter
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder, **save)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    for architecture in KINDS:
        write_checkpoint(architecture, root / architecture)
    return {architecture: root / architecture for architecture in KINDS}


@pytest.fixture
def dinov2(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a checkpoint that a test may damage."""
    shutil.copytree(folders["dinov2"], tmp_path / "dinov2")
    return tmp_path / "dinov2"


@pytest.fixture(scope="module")
def scene() -> Scene:
    plain = make_scene("photos", views=3, size=(96, 128))
    noise = np.random.default_rng(0).integers(0, 40, plain.rgb.shape)
    return Scene(plain.record, np.clip(plain.rgb.astype(int) + noise, 0, 255).astype(np.uint8), plain.depth_m)


def teacher(architecture: str, folder: Path | str, **options: Any) -> Vision2DTeacher:
    kind = KINDS[architecture]
    return create("teachers", {"name": "mine", "kind": kind, "options": {"checkpoint": str(folder)} | options})


def tokens(architecture: str, folder: Path, scene: Scene, **options: Any) -> np.ndarray:
    found = teacher(architecture, folder, image_px=LAYOUTS[architecture].tiny_px, **options)
    found.load(None, "cpu")
    return found.encode(scene).tokens


def reference(architecture: str, folder: Path, scene: Scene) -> Any:
    """transformers' own class on pixels made here, without the code under test."""
    mean, std, resampling = PIXELS[architecture]
    height, width = SIZES[architecture]
    views = [np.asarray(Image.fromarray(view).resize((width, height), resampling)) for view in scene.rgb]
    pixels = torch.tensor(((np.stack(views) / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    changed = {"mask_ratio": 0.0} if architecture == "vit_mae" else {}
    model = getattr(transformers, LAYOUTS[architecture].model_class).from_pretrained(folder, **changed).eval()
    more: dict[str, Any] = {}
    if architecture in ("siglip_vision_model", "clip_vision_model", "vit_mae"):
        more["interpolate_pos_encoding"] = True
    if architecture == "vit_mae":
        more["noise"] = torch.arange(64.0).repeat(3, 1)
    if architecture == "siglip2_vision_model":
        image_patches = [
            [image[:, r : r + 16, c : c + 16].permute(1, 2, 0).flatten() for r in range(0, 96, 16) for c in range(0, 128, 16)]
            for image in pixels
        ]
        pixels = torch.stack([torch.stack(patches) for patches in image_patches])
        more |= {"pixel_attention_mask": torch.ones(3, 48, dtype=torch.int32), "spatial_shapes": torch.tensor([[6, 8]] * 3)}
    with torch.no_grad():
        return model(pixel_values=pixels, output_hidden_states=True, **more), model


@pytest.mark.parametrize("architecture", KINDS)
def test_features_are_transformers_own(architecture: str, folders: dict[str, Path], scene: Scene) -> None:
    outputs, _ = reference(architecture, folders[architecture], scene)
    found = tokens(architecture, folders[architecture], scene)
    wanted = outputs.last_hidden_state[:, LEAD.get(architecture, 0) :].numpy()
    assert found.shape == (3, *(side // tiny_vision(architecture).patch for side in SIZES[architecture]), 32)
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=2e-5)


@pytest.mark.parametrize("architecture", ["dinov2_with_registers", "siglip2_vision_model", "clip_vision_model", "vit_mae"])
def test_layers_are_block_outputs_with_the_final_norm_on_request(
    architecture: str, folders: dict[str, Path], scene: Scene
) -> None:
    outputs, model = reference(architecture, folders[architecture], scene)
    lead = LEAD.get(architecture, 0)
    plain = tokens(architecture, folders[architecture], scene, layers=[0], norm=False)
    wanted = outputs.hidden_states[1][:, lead:].numpy()
    np.testing.assert_allclose(plain.reshape(wanted.shape), wanted, atol=2e-5)
    normed = tokens(architecture, folders[architecture], scene, layers=[0], norm=True)
    with torch.no_grad():
        wanted = model.get_submodule(LAYOUTS[architecture].norm)(outputs.hidden_states[1])[:, lead:].numpy()
    np.testing.assert_allclose(normed.reshape(wanted.shape), wanted, atol=2e-5)


def test_layers_side_by_side_are_scaled_alike(folders: dict[str, Path], scene: Scene) -> None:
    found = teacher("dinov2", folders["dinov2"], image_px=112, layers=[-1, 0], norm=False)
    assert (found.dim, found.layers()) == (64, {"layer1": 32, "layer0": 32})
    both = tokens("dinov2", folders["dinov2"], scene, layers=[-1, 0], norm=False)
    for part, layer in ((both[..., :32], -1), (both[..., 32:], 0)):
        alone = tokens("dinov2", folders["dinov2"], scene, layers=[layer], norm=False)
        scale = np.sqrt((alone**2).mean(-1, keepdims=True))
        np.testing.assert_allclose(part, alone / scale, atol=2e-5)


RELEASED: list[tuple[str, dict[str, Any], dict[str, Any], tuple[int, int, int]]] = [
    ("dinov2", {"model_type": "dinov2", "hidden_size": 1024, "image_size": 518, "patch_size": 14}, {}, (28, 37, 1024)),
    (
        "dinov2",
        {"model_type": "dinov2", "image_size": 518, "patch_size": 14},
        {"resize": "squash", "image_px": 224},
        (16, 16, 768),
    ),
    (
        "dinov2_with_registers",
        {"model_type": "dinov2_with_registers", "hidden_size": 1024, "image_size": 518, "patch_size": 14},
        {"registers": True},
        (28, 37, 1024),
    ),
    ("dinov3_vit", {"model_type": "dinov3_vit", "hidden_size": 1024, "num_register_tokens": 4}, {}, (24, 32, 1024)),
    (
        "siglip_vision_model",
        {"model_type": "siglip", "vision_config": {"hidden_size": 1152, "image_size": 384, "patch_size": 14}},
        {},
        (27, 27, 1152),
    ),
    ("siglip2_vision_model", {"model_type": "siglip2", "vision_config": {"hidden_size": 1152}}, {}, (24, 32, 1152)),
    (
        "clip_vision_model",
        {
            "model_type": "clip",
            "vision_config": {"hidden_size": 1024, "num_attention_heads": 16, "image_size": 336, "patch_size": 14},
        },
        {},
        (24, 24, 1024),
    ),
    ("vit_mae", {"model_type": "vit_mae", "hidden_size": 1024}, {}, (14, 14, 1024)),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "config", "options", "wanted"), RELEASED, ids=lambda value: str(value)[:30])
def test_grids_of_released_models_on_a_scannet_frame(
    architecture: str, config: dict[str, Any], options: dict[str, Any], wanted: tuple[int, int, int], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = teacher(architecture, tmp_path, **options)
    grid = found.grid(968, 1296)
    assert (grid.rows, grid.cols, found.dim) == wanted
    assert grid.window == (0.0, 0.0, 1.0, 1.0)


def test_passes_and_precision_change_little(folders: dict[str, Path], scene: Scene) -> None:
    whole = tokens("dinov3_vit", folders["dinov3_vit"], scene)
    split = tokens("dinov3_vit", folders["dinov3_vit"], scene, views_per_pass=2)
    assert "views_per_pass: 8" in teacher("dinov3_vit", folders["dinov3_vit"]).memory_advice()
    np.testing.assert_allclose(split, whole, atol=1e-5)
    low = tokens("dinov3_vit", folders["dinov3_vit"], scene, precision="bfloat16")
    cosine = (low * whole).sum(-1) / np.linalg.norm(low, axis=-1) / np.linalg.norm(whole, axis=-1)
    assert cosine.min() > 0.999
    assert not np.array_equal(low, whole)


def test_the_checkpoints_own_pixel_values_are_used(dinov2: Path, scene: Scene) -> None:
    found = teacher("dinov2", dinov2, image_px=112)
    plain, before = tokens("dinov2", dinov2, scene), found.load(None, "cpu")
    (dinov2 / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}))
    changed = teacher("dinov2", dinov2, image_px=112)
    assert changed.load(None, "cpu") != before
    assert not np.allclose(changed.encode(scene).tokens, plain, atol=1e-2)
    (dinov2 / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4]}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json cannot be used"):
        teacher("dinov2", dinov2).grid(96, 128)


def test_shards_make_the_same_network(tmp_path: Path, folders: dict[str, Path], scene: Scene) -> None:
    write_checkpoint("dinov2", tmp_path / "sharded", max_shard_size="40KB")
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 1
    teacher("dinov2", tmp_path / "sharded").check_weights()
    found = tokens("dinov2", tmp_path / "sharded", scene)
    np.testing.assert_array_equal(found, tokens("dinov2", folders["dinov2"], scene))
    shards[0].unlink()
    with pytest.raises(CheckpointError, match=f"1 of {len(shards)} weight files are missing, first {shards[0].name}"):
        teacher("dinov2", tmp_path / "sharded").check_weights()


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("architecture", KINDS)
def test_pickled_weights_make_the_same_network(
    architecture: str, sharded: bool, folders: dict[str, Path], scene: Scene, tmp_path: Path
) -> None:
    """Older official folders hold pytorch_model.bin and nothing else."""
    folder = shutil.copytree(folders[architecture], tmp_path / "old")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]} if sharded else {"pytorch_model.bin": names}
    for file, held in parts.items():
        torch.save({name: state[name] for name in held}, folder / file)
    if sharded:
        content = {"weight_map": {name: file for file, held in parts.items() for name in held}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(content))
    teacher(architecture, folder).check_weights()
    np.testing.assert_array_equal(tokens(architecture, folder, scene), tokens(architecture, folders[architecture], scene))
    (folder / list(parts)[-1]).unlink()
    with pytest.raises(CheckpointError, match=r"weight files are missing, first (pytorch_model-2|model)\."):
        teacher(architecture, folder).check_weights()


@pytest.mark.parametrize("architecture", KINDS)
def test_headers_alone_are_checked(architecture: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("tensors were read")

    monkeypatch.setattr("pipeline.teachers._vision2d.checkpoint.read_weights", refuse)
    teacher(architecture, folders[architecture]).check_weights()


def edited(path: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(path)
    edit(state)
    save_file(state, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: state.pop("layernorm.bias"), r"1 missing, first layernorm\.bias"),
        (lambda state: state.update(extra=torch.ones(1)), "1 unexpected, first extra"),
        (lambda state: state.update({"layernorm.bias": torch.ones(31)}), r"1 misshapen, first .*layernorm\.bias"),
    ],
)
@pytest.mark.parametrize("act", ["check", "load"])
def test_other_weights_are_refused(dinov2: Path, edit: Callable[..., Any], message: str, act: str) -> None:
    edited(dinov2 / "model.safetensors", edit)
    found = teacher("dinov2", dinov2)
    with pytest.raises(CheckpointError, match=message) as caught:
        found.check_weights() if act == "check" else found.load(None, "cpu")
    assert "facebook/dinov2" in str(caught.value)


def test_damaged_and_missing_files_are_told(dinov2: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    weights = dinov2 / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        teacher("dinov2", dinov2).check_weights()
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"1 of 1 weight files are missing[\s\S]*teachers\.mine\.checkpoint"):
        teacher("dinov2", dinov2).load(None, "cpu")
    (dinov2 / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        teacher("dinov2", dinov2).grid(96, 128)
    with pytest.raises(CheckpointError, match="does not exist"):
        assert teacher("dinov2", tmp_path / "nowhere").dim
    with pytest.raises(CheckpointError, match=r"is a 'vit_mae' model[\s\S]*dinov2, dinov2_with_registers"):
        teacher("dinov2", folders["vit_mae"]).check_weights()
    with pytest.raises(CheckpointError, match=r"allowed: dinov2_with_registers"):
        teacher("dinov2", folders["dinov2"], registers=True).check_weights()
    (dinov2 / "config.json").write_text(json.dumps({"model_type": "dinov2", "hidden_size": "wide"}))
    with pytest.raises(CheckpointError, match=r"not one of a dinov2 model.*hidden_size"):
        teacher("dinov2", dinov2).check_weights()


def test_wrong_options_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"no block 2[\s\S]*-2 to 1"):
        teacher("dinov2", folders["dinov2"], layers=[2]).check_weights()
    with pytest.raises(ConfigError, match="name a block twice"):
        teacher("dinov2", folders["dinov2"], layers=[1, -1]).load(None, "cpu")
    with pytest.raises(ConfigError, match="give checkpoint: FOLDER"):
        create("teachers", {"name": "mine", "kind": "clip", "options": {}})
    with pytest.raises(ConfigError, match="give checkpoint: FOLDER"):
        teacher("dinov2", folders["dinov2"], size="tiny_untrained")
    with pytest.raises(FrameError, match="10 x 1000 pixels leave no room"):
        teacher("dinov2", folders["dinov2"]).grid(10, 1000)


def test_untrained_networks_depend_on_their_seed_alone(scene: Scene) -> None:
    def untrained(seed: int) -> tuple[str, np.ndarray]:
        options = {"size": "tiny_untrained", "seed": seed}
        found = create("teachers", {"name": "mine", "kind": "dinov2", "options": options})
        return found.load(None, "cpu"), found.encode(scene).tokens

    torch.manual_seed(1)
    first = untrained(0)
    torch.manual_seed(2)
    again, other = untrained(0), untrained(1)
    assert first[0] == again[0] != other[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.allclose(first[1], other[1], atol=1e-2)
