"""What is particular to one family: M-RoPE positions, cells, released sizes, equal segments, weights from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, LlavaOnevisionConfig, Qwen2_5_VLConfig

from pipeline.backbones._transformers.models import load_model
from pipeline.backbones._transformers.prompts import INSTRUCTION
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN
from pipeline.backbones.internvl.model import InternVLBackbone
from pipeline.backbones.llava_onevision.model import LlavaOnevisionBackbone
from pipeline.backbones.qwen2_5_vl.model import SEGMENTS, Qwen25VLBackbone
from pipeline.core import registry
from pipeline.core.errors import CheckpointError, ConfigError

FAMILIES = {"qwen2_5_vl": Qwen25VLBackbone, "llava_onevision": LlavaOnevisionBackbone, "internvl": InternVLBackbone}


def _built(kind: str, folder: Path, **options: Any) -> Any:
    member = registry.create("backbones", {"name": kind, "kind": kind, "options": options})
    member.train_tokenizer([INSTRUCTION, "You are a helpful assistant. a red chair"] * 3, folder)
    return member.build(folder, seed=0, device="cpu")


@pytest.mark.parametrize("tokens", [(4, 4), (3, 5), (4, 2)])
def test_positions_equal_get_rope_index(tokens: tuple[int, int], tmp_path: Path) -> None:
    loaded = _built("qwen2_5_vl", tmp_path, tokens_per_view=tokens)
    prefix = loaded.prefix(3, 96, 128)
    ids = torch.from_numpy(prefix.input_ids)
    pixels = loaded.preprocess(np.zeros((3, 96, 128, 3), np.uint8))
    inputs = loaded.native_inputs(prefix, pixels, ids)
    theirs, delta = loaded.model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    assert np.array_equal(prefix.positions, theirs[:, 0].numpy())
    assert prefix.next_position == len(ids) + int(delta)
    assert loaded.view_grid(96, 128).count == tokens[0] * tokens[1]


def test_missing_token_types_are_refused(tmp_path: Path) -> None:
    """Qwen2.5-VL would silently use 1-D positions."""
    loaded = _built("qwen2_5_vl", tmp_path)
    prefix = loaded.prefix(2, 96, 128)
    text_only = torch.from_numpy(np.delete(prefix.input_ids, prefix.visual_index[:3]))
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        loaded.native_inputs(prefix, loaded.preprocess(np.zeros((2, 96, 128, 3), np.uint8)), text_only)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [(4, 4), (3, 5)])
def test_equal_segments_equal_the_loop_over_images(tokens: tuple[int, int], tmp_path: Path) -> None:
    loaded = _built("qwen2_5_vl", tmp_path, tokens_per_view=tokens)
    loaded.model.eval()
    rgb = np.random.default_rng(0).integers(0, 256, (6, 96, 128, 3), dtype=np.uint8)
    pixels = loaded.preprocess(rgb).reshape(2, 3, 3, *loaded.image_size)
    batched = loaded.encode_views(pixels, 96, 128)
    assert loaded._packed(6, pixels.device)["segment"] == tokens[0] * tokens[1] * 4
    loaded._vision._attn_implementation = "sdpa"
    loaded._packing.clear()
    looped = loaded.encode_views(pixels, 96, 128)
    assert loaded._packed(6, pixels.device).get("segment") is None
    assert (batched - looped).abs().max() < 1e-5
    alone = loaded.encode_views(pixels[:1, :1], 96, 128)
    assert (alone[0] - looped[0, : tokens[0] * tokens[1]]).abs().max() < 1e-5


def test_windows_smaller_than_the_image_use_the_class_loop(tmp_path: Path) -> None:
    loaded = _built("qwen2_5_vl", tmp_path)
    loaded._vision.window_size = 32
    packed = loaded._packed(2, torch.device("cpu"))
    assert "segment" not in packed
    assert len(packed["cu_window_seqlens"]) == 2 * 4 + 1
    assert loaded._vision._attn_implementation == SEGMENTS


def test_released_sizes_and_windows(tmp_path: Path) -> None:
    assert Qwen25VLBackbone.default_tokens(Qwen2_5_VLConfig()) == (14, 14)
    assert LlavaOnevisionBackbone.default_tokens(LlavaOnevisionConfig()) == (14, 14)
    assert InternVLBackbone.default_tokens(InternVLConfig()) == (16, 16)
    loaded = _built("llava_onevision", tmp_path)
    loaded.model.config.vision_config.image_size, loaded.model.config.vision_config.patch_size = 384, 14
    assert loaded.view_grid(480, 640).window == (0.0, 0.0, 378 / 384, 378 / 384)
    # Reference: the last of 14 cells of 3DRS is centred at 13.5 * 27 / 384 of the side.
    assert np.isclose((13.5 / 14) * 378 / 384, 13.5 * 27 / 384)


def test_llava_puts_its_newline_after_the_last_view(tmp_path: Path) -> None:
    loaded = _built("llava_onevision", tmp_path)
    prefix = loaded.prefix(2, 96, 128)
    assert prefix.extra_index is not None
    assert prefix.extra_index.tolist() == [prefix.visual_index[-1] + 1]
    embeds = torch.zeros(2, len(prefix.input_ids), loaded.hidden_size)
    placed = loaded.insert_extra(embeds, prefix)
    assert torch.equal(placed[1, prefix.extra_index[0]], loaded.model.model.image_newline)
    assert placed.abs().sum(-1).gt(0).sum() == 2


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_partial_truncated_foreign_and_missing_weights(kind: str, tmp_path: Path) -> None:
    loaded = _built(kind, tmp_path / "tokenizer")
    folder = tmp_path / "model"
    loaded.save(folder)

    def load(path: Path) -> None:
        load_model(FAMILIES[kind], path, device="cpu", dtype="float32", tokens=None)

    load(folder)
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    dropped = next(name for name in whole if name.endswith("down_proj.weight"))
    save_file({k: v for k, v in whole.items() if k != dropped}, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"do not fit config\.json: 1 missing, first '[\w.]*down_proj\.weight'"):
        load(folder)
    save_file(whole, weights, metadata={"format": "pt"})
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read: it is cut short"):
        load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="1 of 1 weight files are missing, first model"):
        load(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="llama"):
        load(folder)
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        load(tmp_path / "nowhere")


def test_new_tokens_of_a_checkpoint_start_as_the_mean(tmp_path: Path) -> None:
    """A released tokenizer knows neither <ground> nor <coord>."""
    loaded = _built("internvl", tmp_path / "t")
    folder = tmp_path / "model"
    loaded.save(folder)
    data = json.loads((folder / "tokenizer.json").read_text())
    ids = {t["content"]: t["id"] for t in data["added_tokens"]}
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in (GROUND_TOKEN, COORD_TOKEN)]
    for token in (GROUND_TOKEN, COORD_TOKEN):
        data["model"]["vocab"][f"unused{ids[token]}"] = data["model"]["vocab"].pop(token, ids[token])
    (folder / "tokenizer.json").write_text(json.dumps(data))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("extra_special_tokens", None)
    settings.pop("additional_special_tokens", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    again = load_model(InternVLBackbone, folder, device="cpu", dtype="float32", tokens=None)
    new = [again.tokenizer.convert_tokens_to_ids(t) for t in (GROUND_TOKEN, COORD_TOKEN)]
    table = again.model.get_input_embeddings().weight
    assert min(new) >= len(loaded.tokenizer)
    assert len(table) > max(new)
    mean = table[: min(new)].float().mean(0)
    for token in new:
        assert torch.allclose(table[token], mean, atol=1e-6)
    assert again.model.lm_head.weight is table, "tied tables stay tied"


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_bfloat16_runs(kind: str, tmp_path: Path) -> None:
    loaded = _built(kind, tmp_path / "t")
    loaded.save(tmp_path / "m")
    member = registry.create(
        "backbones", {"name": "x", "kind": kind, "options": {"checkpoint": str(tmp_path / "m"), "dtype": "bfloat16"}}
    )
    assert member.pretrain_dataset() is None
    assert member.checkpoint == tmp_path / "m"
    half = member.load(member.checkpoint, device="cpu")
    visual = half.encode_views(half.preprocess(np.zeros((1, 96, 128, 3), np.uint8))[None], 96, 128)
    assert visual.dtype == torch.bfloat16
    assert torch.isfinite(visual.float()).all()


def test_options_name_their_way_out() -> None:
    def create(options: dict[str, Any]) -> Any:
        return registry.create("backbones", {"name": "b", "kind": "qwen2_5_vl", "options": options})

    assert create({}).pretrain_dataset() == "rooms"
    with pytest.raises(ConfigError, match="not both"):
        create({"size": "tiny", "checkpoint": "weights/x"})
    with pytest.raises(ConfigError, match="did you mean 'checkpoint'"):
        create({"checkpont": "weights/x"})
