"""Batches of training steps: scenes of one shape stacked, their questions packed, computed ahead in a thread.

Only the sampler decides what a step sees (training/sampler.py); here tokens, tensors and padding are made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from pipeline.backbones._transformers.prompts import target_text, user_text
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN, LoadedBackbone
from pipeline.core.errors import AnnotationError
from pipeline.features.store import FeatureReader
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Sample, SceneRecord
from pipeline.study.recipe import Recipe
from pipeline.training.packing import PackedText, Question, make_question, pack
from pipeline.training.sampler import QuestionSampler, Visit
from pipeline.training.scenes import EntryCache, SceneEntry, scene_entry


@dataclass(frozen=True, slots=True)
class SceneBatch:
    """S scenes with equally many views of one size. Shapes as in SceneEntry with a leading S; boxes padded to N.

    ``box_present`` (S,N) tells boxes from padding.
    """

    views: int
    size_px: tuple[int, int]
    pixels: torch.Tensor
    cell_valid: torch.Tensor
    cell_voxels: torch.Tensor
    box_voxels: torch.Tensor
    pooling: torch.Tensor
    box_visible: torch.Tensor
    box_present: torch.Tensor
    teacher: torch.Tensor | None
    teacher_weights: torch.Tensor | None

    def to(self, device: str | torch.device) -> SceneBatch:
        """Move the batch to another device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, slots=True)
class TrainingGroup:
    """Scenes of one shape with their questions.

    ``positives`` bool (Qg,N+1), the zero target last, one row per grounding question; ``coord_box`` (Qc,) the box (row of
    its scene) that each ``<coord>`` token points at; ``benchmark`` and ``sample_ids`` name every question (Q,).
    """

    scenes: SceneBatch
    text: PackedText
    positives: torch.Tensor
    coord_box: torch.Tensor
    benchmark: tuple[str, ...]
    sample_ids: tuple[str, ...]

    def to(self, device: str | torch.device) -> TrainingGroup:
        """Move the group to another device."""
        return replace(
            self,
            scenes=self.scenes.to(device),
            text=self.text.to(device),
            positives=self.positives.to(device),
            coord_box=self.coord_box.to(device),
        )


def stack_scenes(entries: Sequence[SceneEntry]) -> SceneBatch:
    """Stack entries of one shape; boxes are padded to the largest number."""
    boxes = max(len(e.box_visible) for e in entries)

    def padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        out = tensors[0].new_zeros((len(tensors), boxes, *tensors[0].shape[1:]))
        for row, tensor in zip(out, tensors, strict=True):
            row[: len(tensor)] = tensor
        return out

    teachers = [e.teacher for e in entries if e.teacher is not None]
    weights = [torch.ones(len(e.cell_valid)) if e.teacher_weights is None else e.teacher_weights for e in entries]
    weighted = any(e.teacher_weights is not None for e in entries)
    return SceneBatch(
        views=len(entries[0].pixels),
        size_px=entries[0].size_px,
        pixels=torch.stack([e.pixels for e in entries]),
        cell_valid=torch.stack([e.cell_valid for e in entries]),
        cell_voxels=torch.stack([e.cell_voxels for e in entries]),
        box_voxels=padded([e.box_voxels for e in entries]),
        pooling=padded([e.pooling for e in entries]),
        box_visible=padded([e.box_visible for e in entries]),
        box_present=padded([torch.ones(len(e.box_visible), dtype=torch.bool) for e in entries]),
        teacher=torch.stack(teachers) if teachers else None,
        teacher_weights=torch.stack(weights) if weighted else None,
    )


class Tokens:
    """Token ids of samples, kept: an epoch asks for the same texts again (about 0.2 kB a sample)."""

    def __init__(self, loaded: LoadedBackbone):
        self._loaded = loaded
        self.ground_id = token_id(loaded.tokenizer, GROUND_TOKEN)
        self.coord_id = token_id(loaded.tokenizer, COORD_TOKEN)
        self._kept: dict[tuple[str, str], Question] = {}

    def training(self, sample: Sample) -> Question:
        """Return question and answer of a training sample."""
        key = (sample.benchmark, sample.sample_id)
        if key not in self._kept:
            asked = self._loaded.question_ids(user_text(sample))
            told = self._loaded.answer_ids(target_text(sample))
            self._kept[key] = make_question(asked, told, ground_id=self.ground_id, coord_id=self.coord_id)
        return self._kept[key]


class TrainingData:
    """Makes the batches of steps. Candidates of training scenes are their ground-truth boxes in object order."""

    def __init__(
        self,
        index: SceneIndex,
        sampler: QuestionSampler,
        loaded: LoadedBackbone,
        recipe: Recipe,
        features: FeatureReader | None,
        *,
        cache_mb: int,
    ):
        self._index, self._sampler, self._loaded = index, sampler, loaded
        self._recipe, self._features = recipe, features
        self._tokens = Tokens(loaded)
        self._entries = EntryCache(self._entry, cache_mb)

    @property
    def cached_bytes(self) -> int:
        """Return the memory of the prepared scenes that are kept, in bytes."""
        return self._entries.nbytes

    def _entry(self, scene_id: str) -> SceneEntry:
        scene = self._index.load(scene_id)
        boxes = np.asarray([o.box for o in scene.record.objects], dtype=np.float64).reshape(-1, 6)
        return scene_entry(scene, boxes, self._loaded, self._recipe, self._features)

    def batch(self, step: int) -> list[TrainingGroup]:
        """Return a step's groups: its visits by scene shape in order of first appearance, up to ``scenes_per_pass`` each."""
        shapes: dict[tuple[int, ...], list[tuple[Visit, SceneEntry]]] = {}
        for visit in self._sampler.plan(step):
            entry = self._entries.get(visit.scene_id)
            shapes.setdefault(entry.shape, []).append((visit, entry))
        size = self._recipe.scenes_per_pass or self._recipe.scenes_per_step
        return [self._group(found[i : i + size]) for found in shapes.values() for i in range(0, len(found), size)]

    def _group(self, found: Sequence[tuple[Visit, SceneEntry]]) -> TrainingGroup:
        scenes = stack_scenes([entry for _, entry in found])
        text = pack([[self._tokens.training(s) for s in visit.samples] for visit, _ in found])
        samples = [s for visit, _ in found for s in visit.samples]
        columns = [object_columns(self._index.records[visit.scene_id]) for visit, _ in found for _ in visit.samples]
        ground = text.ground_question.tolist()
        positives = torch.zeros(len(ground), scenes.box_present.shape[1] + 1, dtype=torch.bool)
        for row, number in enumerate(ground):
            targets = target_columns(samples[number], columns[number])
            positives[row, targets if targets else -1] = True
        coord = [target_columns(samples[i], columns[i])[0] for i in text.coord_question.tolist()]
        return TrainingGroup(
            scenes=scenes,
            text=text,
            positives=positives,
            coord_box=torch.tensor(coord, dtype=torch.int64),
            benchmark=tuple(s.benchmark for s in samples),
            sample_ids=tuple(s.sample_id for s in samples),
        )


def object_columns(record: SceneRecord) -> Mapping[int, int]:
    """Map object id to the column of its box among a training scene's candidates."""
    return {o.object_id: column for column, o in enumerate(record.objects)}


def target_columns(sample: Sample, columns: Mapping[int, int]) -> list[int]:
    """Return the columns of a sample's targets. Raise AnnotationError when the scene has no such object."""
    try:
        return [columns[target] for target in sample.target_ids]
    except KeyError as error:
        raise AnnotationError(
            f"sample {sample.sample_id!r} targets object {error.args[0]}, which scene {sample.scene_id!r} does not have",
            where=f"training samples of {sample.benchmark}",
        ) from None
