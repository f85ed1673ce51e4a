"""Tiny real backbones and synthetic scenes for the tests of training and evaluation."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from pipeline.backbones._transformers.prompts import INSTRUCTION, target_text, user_text
from pipeline.backbones.base import LoadedBackbone
from pipeline.core import registry
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.types import Sample, Scene, SceneObject, SceneRecord
from pipeline.study.recipe import Recipe
from pipeline.teachers.base import TeacherFeatures
from pipeline.training.data import Tokens, TrainingData, TrainingGroup, object_columns, stack_scenes, target_columns
from pipeline.training.packing import pack
from pipeline.training.sampler import QuestionSampler
from pipeline.training.scenes import SceneEntry, scene_entry

KINDS = sorted(registry.member_files("backbones"))
VIEWS, SIZE = 2, 64


def member(kind: str) -> dict:
    cls = registry.member_class("backbones", kind)
    return {"name": f"{kind}_tiny", "kind": kind, "options": cls.options_model().model_dump(mode="json")}


@cache
def _tokenizer(kind: str) -> Path:
    folder = Path(mkdtemp(prefix="tokenizer"))
    texts = [INSTRUCTION, *(user_text(s) for s in samples()), *(target_text(s) for s in samples())]
    registry.create("backbones", member(kind)).train_tokenizer(texts, folder)
    return folder


def backbone(kind: str, seed: int = 0) -> LoadedBackbone:
    """A fresh tiny model of a family with a tokenizer trained on the tests' own texts."""
    return registry.create("backbones", member(kind)).build(_tokenizer(kind), seed=seed, device="cpu")


def samples(scene_id: str = "room", objects: int = 3) -> list[Sample]:
    """Two grounding questions (one without a target), a caption, a question and a situated question."""

    def make(number: int, benchmark: str, task: str, **fields: object) -> Sample:
        return Sample(f"{scene_id}|{benchmark}|{number}", scene_id, benchmark, task, **fields)

    return [
        make(0, "scanrefer", "grounding", text="the red chair next to the table", target_ids=(1,)),
        make(1, "multi3drefer", "grounding", text="this is a lamp", any_number=True, target_ids=()),
        make(2, "multi3drefer", "grounding", text="all of the boxes", any_number=True, target_ids=(0, objects - 1)),
        make(3, "scan2cap", "caption", answer="this is a red chair near the wall", target_ids=(1,), input_box=(0.0,) * 6),
        make(4, "scanqa", "qa", text="what colour is the chair?", answer="red"),
        make(5, "sqa3d", "qa", text="what is in front of me?", situation="I sit on the chair.", answer="a white table"),
    ]


def scene(scene_id: str = "room", seed: int = 0, views: int = VIEWS, objects: int = 3, size: int = SIZE) -> Scene:
    """Random colours and depths of a camera that looks along +y; the last object is far outside (never seen)."""
    rng = np.random.default_rng(seed)
    pose = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1.2], [0, 0, 0, 1]])
    poses = np.stack([pose + 0.3 * v * np.eye(4, 4, 3) for v in range(views)])
    camera = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]])
    depth = rng.uniform(1.0, 4.0, (views, size, size)).astype(np.float32)
    depth[:, : size // 4, : size // 4] = 0
    boxes = [(0.3 * i, 2.0 + i, 1.0, 1.0, 1.5, 1.0) for i in range(objects - 1)] + [(9.0, 9.0, 0.5, 0.5, 0.5, 0.5)]
    record = SceneRecord(
        scene_id=scene_id,
        split="train",
        frame_ids=tuple(f"{v:03d}" for v in range(views)),
        world_from_camera=poses,
        intrinsics=camera,
        depth_intrinsics=camera,
        image_size=(size, size),
        depth_size=(size, size),
        objects=tuple(SceneObject(i, "thing", box) for i, box in enumerate(boxes)),
        proposals=None,
        checksum=f"{seed:016x}",
    )
    return Scene(record, rng.integers(0, 255, (views, size, size, 3), dtype=np.uint8), depth)


def entry(found: Scene, loaded: LoadedBackbone, recipe: Recipe, teacher_dim: int | None = None, seed: int = 0) -> SceneEntry:
    """The entry of a scene, with random teacher tokens when a width is given."""
    made = scene_entry(found, found.record.candidate_boxes(), loaded, recipe)
    if teacher_dim is None:
        return made
    tokens = torch.randn(len(made.cell_valid), teacher_dim, generator=torch.Generator().manual_seed(seed))
    values = {name: getattr(made, name) for name in made.__slots__}
    return SceneEntry(**{**values, "teacher": tokens})


def group(found: list[tuple[Scene, SceneEntry, list[Sample]]], loaded: LoadedBackbone) -> TrainingGroup:
    """The training group of scenes of one shape with these questions."""
    tokens = Tokens(loaded)
    scenes = stack_scenes([e for _, e, _ in found])
    text = pack([[tokens.training(s) for s in asked] for _, _, asked in found])
    flat = [(s, object_columns(f.record)) for f, _, asked in found for s in asked]
    positives = torch.zeros(len(text.ground_question), scenes.box_present.shape[1] + 1, dtype=torch.bool)
    for row, number in enumerate(text.ground_question.tolist()):
        positives[row, target_columns(*flat[number]) or -1] = True
    coord = [target_columns(*flat[i])[0] for i in text.coord_question.tolist()]
    return TrainingGroup(
        scenes,
        text,
        positives,
        torch.tensor(coord, dtype=torch.int64),
        tuple(s.benchmark for s, _ in flat),
        tuple(s.sample_id for s, _ in flat),
    )


class MemoryIndex:
    """The parts of SceneIndex that training and evaluation use, over scenes in memory."""

    dataset = "memory"

    def __init__(self, scenes: list[Scene]):
        self._scenes = {s.scene_id: s for s in scenes}
        self.records = {s.scene_id: s.record for s in scenes}
        self.loads: list[str] = []

    def load(self, scene_id: str) -> Scene:
        self.loads.append(scene_id)
        return self._scenes[scene_id]

    def __iter__(self):
        return iter(self.records.values())


class MemoryFeatures:
    """Random teacher features on a 3x5 grid; ``broken`` scenes have a NaN."""

    dim, grid = 8, TokenGrid(3, 5)

    def __init__(self, broken: tuple[str, ...] = (), confidence: bool = False):
        self.broken, self.confidence = broken, confidence

    def read(self, scene_id: str, frame_ids: tuple[str, ...]) -> TeacherFeatures:
        rng = np.random.default_rng(sum(map(ord, scene_id)))
        tokens = rng.normal(size=(len(frame_ids), 3, 5, 8)).astype(np.float32)
        if scene_id in self.broken:
            tokens[0, 0, 0, 0] = np.nan
        confidence = rng.uniform(size=tokens.shape[:3]).astype(np.float32) if self.confidence else None
        return TeacherFeatures(tokens, self.grid, confidence)


def memory_index(scenes: int = 4, **options: int) -> MemoryIndex:
    return MemoryIndex([scene(f"room{i}", seed=i, **options) for i in range(scenes)])


def training_data(loaded: LoadedBackbone, recipe: Recipe, index: MemoryIndex, features=None, seed: int = 0, cache_mb: int = 64):
    """TrainingData over an in-memory index with the helpers' samples."""
    found: dict[str, list[Sample]] = {}
    for record in index:
        for sample in samples(record.scene_id, len(record.objects)):
            found.setdefault(sample.benchmark, []).append(sample)
    sampler = QuestionSampler(
        found,
        dataset="memory",
        seed=seed,
        scenes_per_step=recipe.scenes_per_step,
        questions_per_scene=recipe.questions_per_scene,
        balance=recipe.balance,
    )
    return TrainingData(index, sampler, loaded, recipe, features, cache_mb=cache_mb)
