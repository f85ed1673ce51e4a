"""Which scenes and which of their questions a training step sees: a pure function of (dataset, seed, step).

No state is kept, so resuming is exact, and teachers, backbones and layers never enter: runs that differ in those only
see the same questions in the same order, which makes their differences paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.provenance import seed_for
from pipeline.scenes.types import Sample


@dataclass(frozen=True, slots=True)
class Visit:
    """One scene of a step with the questions asked about it."""

    scene_id: str
    samples: tuple[Sample, ...]


def _order(count: int, *key: object) -> list[int]:
    order: list[int] = np.random.default_rng(seed_for(*key)).permutation(count).tolist()
    return order


class QuestionSampler:
    """Plans the visits of every step.

    ``samples`` maps benchmark name -> training samples. ``balance``: "tasks" takes equally many questions of every benchmark
    at each visit of a scene (a scene is visited once per pass); "samples" cuts every scene's questions into visits of
    ``questions_per_scene`` and makes one pass over all visits per epoch, so that each sample counts once.
    """

    def __init__(
        self,
        samples: Mapping[str, Sequence[Sample]],
        *,
        dataset: str,
        seed: int,
        scenes_per_step: int,
        questions_per_scene: int,
        balance: Literal["tasks", "samples"],
    ):
        self.samples = samples
        self._by_scene: dict[str, dict[str, list[Sample]]] = {}
        for benchmark, found in samples.items():
            for sample in found:
                self._by_scene.setdefault(sample.scene_id, {}).setdefault(benchmark, []).append(sample)
        if not self._by_scene:
            raise DataError("there are no training samples", fix="check recipes.<name>.train_on and the dataset's train split")
        self.scene_ids = sorted(self._by_scene)
        self.total = sum(len(found) for found in samples.values())
        self._key = (dataset, seed)
        self._scenes_per_step, self._questions = scenes_per_step, questions_per_scene
        self._balance = balance
        self._epoch: tuple[int, list[tuple[str, int]]] = (-1, [])

    @property
    def visits(self) -> int | None:
        """Return the visits in which every sample is asked exactly once; None when samples are balanced over tasks instead."""
        return self._visits() if self._balance == "samples" else None

    def _visits(self) -> int:
        return sum(self._visits_per_pass(scene_id) for scene_id in self.scene_ids)

    def plan(self, step: int) -> list[Visit]:
        """Plan the visits of step ``step`` (0-based)."""
        return [self._visit(step * self._scenes_per_step + i) for i in range(self._scenes_per_step)]

    def _visit(self, number: int) -> Visit:
        """Return the ``number``-th visit of the whole run."""
        length = self._visits()
        epoch, place = divmod(number, length)
        if self._epoch[0] != epoch:
            visits = [(scene_id, i) for scene_id in self.scene_ids for i in range(self._visits_per_pass(scene_id))]
            self._epoch = (epoch, [visits[i] for i in _order(length, *self._key, "visits", epoch)])
        scene_id, part = self._epoch[1][place]
        if self._balance == "samples":
            return Visit(scene_id, self._part(scene_id, epoch, part))
        return Visit(scene_id, self._balanced(scene_id, epoch))

    def _visits_per_pass(self, scene_id: str) -> int:
        if self._balance == "tasks":
            return 1
        return -(-sum(len(found) for found in self._by_scene[scene_id].values()) // self._questions)

    def _part(self, scene_id: str, epoch: int, part: int) -> tuple[Sample, ...]:
        pool = [sample for found in self._by_scene[scene_id].values() for sample in found]
        order = _order(len(pool), *self._key, "questions", scene_id, epoch)
        return tuple(pool[i] for i in order[part * self._questions : (part + 1) * self._questions])

    def _balanced(self, scene_id: str, visit: int) -> tuple[Sample, ...]:
        """Fill a visit's slots from the benchmarks in turn, and each benchmark's turns from its samples in one shuffled order,
        so that every sample is used before any is used again and none comes twice in a visit.
        """
        by_benchmark = self._by_scene[scene_id]
        names = sorted(by_benchmark)
        names = [names[i] for i in _order(len(names), *self._key, "benchmarks", scene_id)]
        chosen: dict[tuple[str, int], Sample] = {}
        orders = {n: _order(len(found), *self._key, "questions", scene_id, n) for n, found in by_benchmark.items()}
        for slot in range(visit * self._questions, (visit + 1) * self._questions):
            turn, which = divmod(slot, len(names))
            name = names[which]
            position = orders[name][turn % len(orders[name])]
            chosen[name, position] = by_benchmark[name][position]
        return tuple(chosen.values())
