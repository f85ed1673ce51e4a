"""Single views and their questions: reading, holding out, batches that depend on (seed, step) only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones._transformers.images import resize
from pipeline.benchmarks._annotations import LONGEST_TEXT
from pipeline.core.errors import AnnotationError
from pipeline.core.provenance import seed_for
from pipeline.scenes.index import SceneIndex
from pipeline.training.pretrain2d.texts import VIEW_QA, read_json

CACHE_MB = 512
"""Most memory for resized views; more views than fit are decoded again."""


@dataclass(frozen=True, slots=True)
class ViewQuestion:
    """A question about one view with all its right answers."""

    question: str
    answers: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class View:
    """One frame of one scene and what is asked about it."""

    scene_id: str
    frame_id: str
    questions: tuple[ViewQuestion, ...]


def read_views(index: SceneIndex) -> list[View]:
    """Read views with questions in file order, from the dataset's ``view_qa`` annotations of split train."""
    grouped: OrderedDict[tuple[str, str], list[ViewQuestion]] = OrderedDict()
    for path in index.annotation_files(VIEW_QA, "train"):
        content = read_json(path)
        if not isinstance(content, list):
            raise AnnotationError(f"{path} does not hold a list of questions")
        for entry in content:
            key, question = _parsed(entry, index, str(path))
            grouped.setdefault(key, []).append(question)
    if not grouped:
        raise AnnotationError("there are no questions about single views", where=str(index.path))
    return [View(scene, frame, tuple(questions)) for (scene, frame), questions in grouped.items()]


def _parsed(entry: Any, index: SceneIndex, where: str) -> tuple[tuple[str, str], ViewQuestion]:
    try:
        scene, frame = entry["scene_id"], entry["frame_id"]
        question = ViewQuestion(str(entry["question"]), tuple(str(a) for a in entry["answers"]), str(entry["kind"]))
    except (KeyError, TypeError) as error:
        raise AnnotationError(f"a view question lacks {error}", where=where) from None
    if scene not in index.records or frame not in index.records[scene].frame_ids:
        raise AnnotationError(f"a view question is about frame {frame!r} of {scene!r}, which is not prepared", where=where)
    if any(len(text.encode()) > LONGEST_TEXT for text in (question.question, *question.answers)):
        raise AnnotationError(f"a view question has more than {LONGEST_TEXT:,} bytes of text ({scene}, {frame})", where=where)
    if not question.answers:
        raise AnnotationError(f"no answers to {question.question!r} ({scene}, {frame})", where=where)
    return (scene, frame), question


def hold_out(views: Sequence[View], share: float) -> tuple[list[View], list[View]]:
    """Split views into (training, held-out): the last ``share`` of the scenes (at least one) is held out as a whole."""
    scenes = list(dict.fromkeys(view.scene_id for view in views))
    if len(scenes) < 2:
        raise AnnotationError("2D pretraining needs views of at least two scenes, one is held out")
    count = max(1, round(share * len(scenes)))
    held = set(scenes[-count:])
    return [v for v in views if v.scene_id not in held], [v for v in views if v.scene_id in held]


class ViewImages:
    """Resized views uint8 (h,w,3), kept in memory up to ``CACHE_MB``."""

    def __init__(self, index: SceneIndex, size: tuple[int, int]):
        self._index, self._size = index, size
        self._limit = CACHE_MB * 2**20 // (size[0] * size[1] * 3)
        self._kept: dict[tuple[str, str], NDArray[np.uint8]] = {}

    def get(self, view: View) -> NDArray[np.uint8]:
        """Return one view at the model's size. Raise FrameError."""
        key = (view.scene_id, view.frame_id)
        if key in self._kept:
            return self._kept[key]
        image = resize(self._index.color(view.scene_id, view.frame_id)[None], *self._size)[0]
        if len(self._kept) < self._limit:
            self._kept[key] = image
        return image

    def stack(self, views: Sequence[View]) -> NDArray[np.uint8]:
        """Stack views to (n,h,w,3)."""
        return np.stack([self.get(view) for view in views])


@dataclass(frozen=True, slots=True)
class Draw:
    """The input of a step: views, for each its chosen questions with the chosen answer, and whether it is mirrored."""

    views: tuple[View, ...]
    questions: tuple[tuple[tuple[ViewQuestion, str], ...], ...]
    mirrored: tuple[bool, ...]


_SIDED = ("left", "right")


class ViewSampler:
    """Draws batches. Views come in shuffled passes; a view's questions are drawn without repetition.

    ``draw(step)`` depends on seed and step alone, so a resumed run continues exactly.
    """

    def __init__(self, views: Sequence[View], *, views_per_step: int, questions_per_view: int, seed: int):
        self._views = list(views)
        self._count, self._questions, self._seed = min(views_per_step, len(self._views)), questions_per_view, seed
        self._sided = [any(w in q.question.lower() for w in _SIDED for q in view.questions) for view in self._views]
        self._pass: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def with_views_per_step(self, count: int) -> ViewSampler:
        """Return a sampler of another size over the same views."""
        return ViewSampler(self._views, views_per_step=count, questions_per_view=self._questions, seed=self._seed)

    def _order(self, number: int) -> NDArray[np.int64]:
        if self._pass[0] != number:
            random = np.random.default_rng(seed_for("view pass", self._seed, number))
            self._pass = (number, random.permutation(len(self._views)))
        return self._pass[1]

    def draw(self, step: int) -> Draw:
        """Draw the batch of a 0-based step."""
        random = np.random.default_rng(seed_for("view draw", self._seed, step))
        places = range(step * self._count, (step + 1) * self._count)
        chosen = [int(self._order(p // len(self._views))[p % len(self._views)]) for p in places]
        questions = []
        for place in chosen:
            asked = self._views[place].questions
            order = random.permutation(len(asked))[: self._questions]
            picked = [asked[int(q)] for q in order]
            questions.append(tuple((q, q.answers[int(random.integers(len(q.answers)))]) for q in picked))
        mirrored = tuple(bool(random.random() < 0.5) and not self._sided[place] for place in chosen)
        return Draw(tuple(self._views[place] for place in chosen), tuple(questions), mirrored)
