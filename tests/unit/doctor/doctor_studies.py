"""Configurations and checkpoints for the doctor's tests. What is made up says so in its name."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import yaml

from pipeline.core import registry
from pipeline.study.config import StudyConfig

ROOMS: dict[str, Any] = {"kind": "rooms", "train": 6, "val": 2, "test": 3, "views": 4}
"""Options of the rooms that the session fixture `tiny_rooms_folder` has made."""
BENCHMARKS: dict[str, Any] = {
    name: {} for name in ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d", "correspondence")
}
FAKE_TEACHER = '''
"""Teacher of a test: needs files that stand for released weights and finds fault with any that say so."""

from pathlib import Path

from pydantic import Field

from pipeline.core.errors import CheckpointError
from pipeline.scenes.grid import TokenGrid
from pipeline.core.options import Options
from pipeline.core.releases import Licence, WeightFile
from pipeline.teachers.base import Teacher


class FakeOptions(Options):
    """Which files."""

    files: tuple[str, ...] = Field((), description="Files it needs.")
    size: int | None = Field(None, description="Published bytes of each.")


class FakeTeacher(Teacher):
    """Needs files."""

    options_model = FakeOptions
    set_dependent = True

    @property
    def dim(self):
        return 2048

    def grid(self, height_px, width_px):
        return TokenGrid(28, 37)

    def encode(self, scene):
        raise NotImplementedError

    def licences(self):
        return Licence("BSD-3-Clause", "CC BY-NC 4.0", commercial=False)

    def weight_files(self):
        return tuple(WeightFile(Path(f), f"weights {f}", "the authors' page", self.options.size) for f in self.options.files)

    def check_weights(self):
        for file in self.options.files:
            if Path(file).is_file() and Path(file).read_bytes() == b"faulty":
                raise CheckpointError(f"{file} has 3 missing entries, first 'a.weight'", where=file, fix="download it again")
'''


def built_in(**changes: Any) -> dict[str, Any]:
    """A study of tiny rooms in which everything is made here; ``changes`` replace sections."""
    content: dict[str, Any] = {
        "datasets": {"tiny_rooms": dict(ROOMS)},
        "teachers": {"geometry": {}, "shuffled": {"of": "geometry"}},
        "backbones": {"qwen2_5_vl": {"size": "tiny", "pretrain": {"dataset": "tiny_rooms"}}},
        "recipes": {"3drs": {"steps": 5}},
        "benchmarks": dict(BENCHMARKS),
        "study": {"teachers": ["shuffled"], "seeds": [0, 1]},
    }
    return content | changes


def lab(**changes: Any) -> dict[str, Any]:
    """A study as in a laboratory: rooms with 32 views, the released VGGT and a released Qwen2.5-VL, neither downloaded."""
    content = built_in(
        datasets={"rooms": {"train": 562, "val": 1, "test": 141, "views": 32, "width_px": 640, "height_px": 480}},
        teachers={"vggt_1b": {"kind": "vggt", "checkpoint": "weights/vggt/model.pt"}},
        backbones={"qwen_3b": {"kind": "qwen2_5_vl", "checkpoint": "weights/Qwen2.5-VL-3B-Instruct"}},
        recipes={"3drs": {"steps": 13946, "scenes_per_step": 16, "questions_per_scene": 1, "gradient_checkpointing": True}},
        study={"seeds": [0]},
    )
    return content | changes


def write_config(content: dict[str, Any], path: Path = Path("study.yaml")) -> StudyConfig:
    """Write it as a file and check it."""
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return StudyConfig(content)


def tiny_random_checkpoint(kind: str, folder: Path) -> Path:
    """A checkpoint folder of a real class of the library at tiny size, random weights, many shards, as a release has."""
    member = registry.create("backbones", {"name": kind, "kind": kind, "options": {}})
    member.train_tokenizer(["You are a helpful assistant. a red chair"] * 3, folder)
    loaded = member.build(folder, seed=0, device="cpu")
    loaded.model.save_pretrained(folder, max_shard_size="500KB")
    loaded.tokenizer.save_pretrained(folder)
    return folder


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a folder."""
    return sorted(folder.glob("*.safetensors"))


def write_header_without_numbers(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A bf16 safetensors file of these entries whose numbers take no disk: a sparse file of the right length."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + 2 * count]}
        end += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
