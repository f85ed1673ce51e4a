"""Inference of one run over a split: every scene's prefix is computed once and read by all questions of all benchmarks.

Scenes of one shape are batched; grounding queries are read at ``<ground>``, answers are generated greedily, and the
model's own visual tokens are measured in the same pass. Prompts come from pipeline.backbones._transformers.prompts, as in
training. No feature store is opened here. Sources: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.backbones._transformers.generate import (
    EditEmbeds,
    NonFiniteLogitsError,
    PrefixCache,
    encode_prefix,
    greedy,
    read_questions,
)
from pipeline.backbones._transformers.prompts import target_text, user_text
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN
from pipeline.benchmarks.base import Benchmark, RepresentationBenchmark
from pipeline.core.errors import PredictionError
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import ModelOutput, Sample, SceneRecord
from pipeline.training.data import SceneBatch, stack_scenes
from pipeline.training.model import SpatialMLLM
from pipeline.training.scenes import SceneEntry, scene_entry

PREFIX_TOKENS = 8192
"""Prefix tokens of the scenes that are computed together (48 rooms of the built-in study, one ScanNet scene)."""
CACHE_TOKENS = 32768
"""Prefix tokens in the expanded caches of questions that are read together: bounds memory."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A sample with the benchmark that asks it and the row of its scene in the batch."""

    benchmark: str
    sample: Sample
    row: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """Scenes after one pass: ``states`` per layer of visual tokens (S,M,C), the prefix cache, candidates per scene."""

    records: list[SceneRecord]
    entries: list[SceneEntry]
    scenes: SceneBatch
    visual: torch.Tensor
    cached: PrefixCache
    states: dict[int, torch.Tensor]
    boxes: list[NDArray[np.float64]]


Outputs = dict[tuple[str, str], tuple[str, ModelOutput]]
"""(benchmark, sample id) -> (prompt, output)."""


class Engine:
    """Answers the samples of benchmarks with one model."""

    def __init__(self, model: SpatialMLLM, index: SceneIndex, benchmarks: Mapping[str, Benchmark], *, device: str):
        self.model, self.index, self.benchmarks, self.device = model.eval(), index, benchmarks, device
        self.loaded = model.loaded
        self._ground = token_id(self.loaded.tokenizer, GROUND_TOKEN)
        self._coord = token_id(self.loaded.tokenizer, COORD_TOKEN)
        self.measured = {name: b for name, b in benchmarks.items() if isinstance(b, RepresentationBenchmark)}
        self._layers = tuple(sorted({-1, *(b.layer for b in self.measured.values())}))

    def run(self, samples: Mapping[str, Sequence[Sample]]) -> Iterator[tuple[int, Outputs]]:
        """Yield (number of scenes, outputs) per batch of scenes, over all scenes that a sample is about, in index order.

        PredictionError, with the sample, when the model gives numbers that are not finite: they would be scored as wrong
        answers.
        """
        by_scene: dict[str, list[tuple[str, Sample]]] = {}
        for benchmark, found in samples.items():
            for sample in found:
                by_scene.setdefault(sample.scene_id, []).append((benchmark, sample))
        for chunk in self._chunks([r for r in self.index if r.scene_id in by_scene]):
            asked = [Asked(name, s, row) for row, record in enumerate(chunk) for name, s in by_scene[record.scene_id]]
            with torch.inference_mode(), self.model.autocast(self.device):
                yield len(chunk), self._answer(chunk, asked)

    def _chunks(self, records: Sequence[SceneRecord]) -> Iterator[list[SceneRecord]]:
        """Yield scenes of one shape, as many as ``PREFIX_TOKENS`` allows."""
        shapes: dict[tuple[int, tuple[int, int]], list[SceneRecord]] = {}
        for record in records:
            shapes.setdefault((len(record.frame_ids), record.image_size), []).append(record)
        for (views, size), found in shapes.items():
            count = max(1, PREFIX_TOKENS // len(self.loaded.prefix(views, *size).input_ids))
            for start in range(0, len(found), count):
                yield found[start : start + count]

    def _answer(self, records: list[SceneRecord], asked: Sequence[Asked]) -> Outputs:
        batch = self._see(records, asked)
        by_task: dict[str, list[Asked]] = {}
        for question in asked:
            by_task.setdefault(question.sample.task, []).append(question)
        outputs = self._ground_all(batch, by_task.get("grounding", []))
        outputs |= self._measure(batch, by_task.get("representation", []))
        for task in ("qa", "caption"):
            outputs |= self._generate(batch, by_task.get(task, []))
        return outputs

    # ------------------------------------------------------------ scenes

    def _see(self, records: list[SceneRecord], asked: Sequence[Asked]) -> _Batch:
        """Encode the prefixes of all scenes; boxes are the candidates, then any others that captions ask about."""
        boxes = [_boxes(r, [a.sample for a in asked if a.row == row]) for row, r in enumerate(records)]
        entries = [
            scene_entry(self.index.load(r.scene_id), b, self.loaded, self.model.recipe)
            for r, b in zip(records, boxes, strict=True)
        ]
        scenes = stack_scenes(entries).to(self.device)
        seen = self.model.encode_scene(scenes)
        cached = encode_prefix(self.loaded, seen.prefix, seen.embeds, layers=self._layers)
        where = torch.from_numpy(seen.prefix.visual_index).to(self.device)
        states = {layer: cached.layers[layer][:, where] for layer in self._layers}
        return _Batch(records, entries, scenes, seen.visual, cached, states, boxes)

    def _rows_at_once(self, batch: _Batch) -> int:
        return max(1, min(256, CACHE_TOKENS // batch.cached.hidden.shape[1]))

    # ------------------------------------------------------------ grounding

    def _ground_all(self, batch: _Batch, asked: Sequence[Asked]) -> Outputs:
        """Compute probabilities over each scene's candidates and the zero target, from the state at ``<ground>``."""
        if not asked:
            return {}
        prompts = [user_text(a.sample) for a in asked]
        ids = [self._grounding_ids(a.sample, prompt) for a, prompt in zip(asked, prompts, strict=True)]
        queries = self._last_states(batch, ids, [a.row for a in asked])
        features = self.model.object_features(batch.scenes, batch.visual, batch.states[-1])
        counts = torch.tensor([len(r.candidate_boxes()) for r in batch.records], device=self.device)
        present = torch.arange(features.shape[1], device=self.device) < counts[:, None]
        scene = torch.tensor([a.row for a in asked], device=self.device)
        with torch.autocast(torch.device(self.device).type, enabled=False):
            logits = self.model.grounding(features, present, queries.float(), scene)
        offered = torch.cat([present, present.new_ones(len(present), 1)], 1)[scene]  # padding is -inf, the last is nothing
        for question, usable in zip(asked, (logits.isfinite() | ~offered).all(1).tolist(), strict=True):
            if not usable:
                raise _not_finite(question, "the logits of the candidates")
        outputs: Outputs = {}
        for question, prompt, chances in zip(asked, prompts, logits.double().softmax(-1).cpu().numpy(), strict=True):
            candidates = batch.records[question.row].candidate_boxes()
            probabilities = np.append(chances[: len(candidates)], chances[-1])
            key = (question.benchmark, question.sample.sample_id)
            outputs[key] = (prompt, ModelOutput(probabilities=probabilities, boxes=candidates))
        return outputs

    def _grounding_ids(self, sample: Sample, prompt: str) -> list[int]:
        answer = self.loaded.answer_ids(target_text(sample))
        return [*self.loaded.question_ids(prompt), *answer[: answer.index(self._ground) + 1]]

    def _last_states(self, batch: _Batch, ids: Sequence[Sequence[int]], rows: Sequence[int]) -> torch.Tensor:
        """Return the last hidden state (Q,C) of every question; questions of similar length are read together."""
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        size = self._rows_at_once(batch)
        found: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            hidden = read_questions(self.loaded, batch.cached, [ids[i] for i in chosen], [rows[i] for i in chosen])
            for place, i in enumerate(chosen):
                found[i] = hidden[place, len(ids[i]) - 1]
        return torch.stack([found[i] for i in range(len(ids))])

    # ------------------------------------------------------------ generation

    def _generate(self, batch: _Batch, asked: Sequence[Asked]) -> Outputs:
        """Generate greedy answers. A gated caption (no box to show) is never asked: no prompt, no text."""
        outputs: Outputs = {}
        open_questions = []
        for question in asked:
            if question.sample.task == "caption" and question.sample.input_box is None:
                outputs[question.benchmark, question.sample.sample_id] = ("", ModelOutput())
            else:
                open_questions.append(question)
        by_length: dict[int, list[Asked]] = {}
        for question in open_questions:
            by_length.setdefault(self.benchmarks[question.benchmark].generation_tokens, []).append(question)
        for tokens, questions in by_length.items():
            prompts = [user_text(q.sample) for q in questions]
            try:
                texts = greedy(
                    self.loaded,
                    batch.cached,
                    [self.loaded.question_ids(prompt) for prompt in prompts],
                    [q.row for q in questions],
                    max_new_tokens=tokens,
                    edit=self._edits(batch, questions),
                    batch_rows=self._rows_at_once(batch),
                )
            except NonFiniteLogitsError as error:
                raise _not_finite(questions[error.place], "the logits of the answer") from None
            for question, prompt, text in zip(questions, prompts, texts, strict=True):
                outputs[question.benchmark, question.sample.sample_id] = (prompt, ModelOutput(raw_text=text))
        return outputs

    def _edits(self, batch: _Batch, questions: Sequence[Asked]) -> list[EditEmbeds | None] | None:
        """Return what marks each question's box at ``<coord>``; None when no question has one."""
        if all(q.sample.input_box is None for q in questions):
            return None
        features = self.model.coord_features(batch.scenes, batch.visual)
        edits: list[EditEmbeds | None] = []
        for question in questions:
            box = question.sample.input_box
            place = None if box is None else _place(batch.boxes[question.row], box)
            edits.append(None if place is None else self._edit(features[question.row, place]))
        return edits

    def _edit(self, feature: torch.Tensor) -> EditEmbeds:
        def mark(embeds: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return embeds + (ids == self._coord)[..., None] * feature.to(embeds.dtype)

        return mark

    # ------------------------------------------------------------ the model's own tokens

    def _measure(self, batch: _Batch, asked: Sequence[Asked]) -> Outputs:
        """Return what representation benchmarks say about the states of each scene's visual tokens."""
        outputs: Outputs = {}
        for question in asked:
            benchmark, entry = self.measured[question.benchmark], batch.entries[question.row]
            states = batch.states[benchmark.layer][question.row].float().cpu().numpy()
            if not np.isfinite(states).all():
                raise _not_finite(question, "the model's states of visual tokens")
            views = len(entry.pixels)
            points = entry.cell_means_m.numpy().reshape(views, -1, 3)
            valid = entry.cell_valid.numpy().reshape(views, -1)
            output = benchmark.measure(states.reshape(views, -1, states.shape[-1]), points, valid)
            if not _is_finite(output):
                raise _not_finite(question, "what is measured of the model's states")
            outputs[question.benchmark, question.sample.sample_id] = ("", output)
        return outputs


def _is_finite(output: ModelOutput) -> bool:
    """Return whether all numbers of a measurement are finite; none at all is fine."""
    return bool(np.isfinite([*output.scores, *([] if output.value is None else [output.value])]).all())


def _not_finite(question: Asked, what: str) -> PredictionError:
    sample = question.sample
    return PredictionError(
        f"{what} are not finite numbers: there is no answer to score",
        where=f"benchmark {question.benchmark}, sample {sample.sample_id}, scene {sample.scene_id}",
        fix="train the run again (--forcerun train), with a lower learning rate where it gives this again",
    )


def _boxes(record: SceneRecord, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return the candidate boxes of a scene, then the boxes of its caption samples that are not candidates."""
    boxes = record.candidate_boxes()
    extra = {s.input_box: None for s in samples if s.input_box is not None and _find(boxes, s.input_box) is None}
    return np.concatenate([boxes, np.asarray(list(extra), dtype=np.float64).reshape(-1, 6)])


def _find(boxes: NDArray[np.float64], box: Sequence[float]) -> int | None:
    same = np.flatnonzero((boxes == np.asarray(box, dtype=np.float64)).all(1))
    return int(same[0]) if len(same) else None


def _place(boxes: NDArray[np.float64], box: Sequence[float]) -> int:
    place = _find(boxes, box)
    assert place is not None, "every caption box is among the scene's boxes"
    return place
