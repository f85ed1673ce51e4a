"""Annotation entries whose scene or object is not there: refused with scan, file and entry, or left out and counted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from pipeline.core.errors import AnnotationError
from pipeline.core.notes import Note, first_of

if TYPE_CHECKING:
    from pipeline.benchmarks.base import Benchmark
    from pipeline.scenes.index import SceneIndex


class NoEntryError(AnnotationError):
    """An annotation file has no entry about the prepared scenes of a split."""


class Unmatched:
    """Entries of ``total`` about scenes, or naming objects, that are not there; the first of them is remembered."""

    def __init__(self, total: int):
        self.total = total
        self.scenes: Counter[str] = Counter()
        self.first = self.where = ""
        self.object_id = -1

    def add(self, scene_id: str, where: str, object_id: int = -1) -> None:
        """Count an entry; ``where`` names file and entry."""
        if not self.scenes:
            self.first, self.where, self.object_id = scene_id, where, object_id
        self.scenes[scene_id] += 1

    def missing_scenes(self, benchmark: Benchmark, index: SceneIndex, split: str, *, skip: bool) -> None:
        """Raise AnnotationError for entries about unprepared scenes; with ``skip`` count them in ``benchmark.left_out``."""
        if not self.scenes:
            return
        text = f"entries of {benchmark.name} are about {len(self.scenes)} scenes that are not in the prepared split {split!r}"
        option = f"benchmarks.{benchmark.name}.skip_missing_scenes: true to score the rest"
        if "skip_unmatched" in index.content:
            option = f"datasets.{index.dataset}.skip_unmatched_annotations: true to leave such entries out"
        if not skip:
            raise AnnotationError(
                f"{self.scenes.total()} of {self.total} {text}: {first_of(sorted(self.scenes))}",
                where=f"first at {self.where}, about scene {self.first}",
                fix=f"prepare these scenes, or set {option}",
            )
        note = self._count("annotations_of_missing_scenes", text, benchmark)
        if not index.skip_unmatched:  # else it was counted by `prepare`
            print(note.line(), file=sys.stderr)

    def missing_objects(self, benchmark: Benchmark, index: SceneIndex, split: str, there: Collection[int]) -> None:
        """Raise AnnotationError for entries with objects that their scene lacks; count them if the dataset was prepared to
        skip them. ``there``: the object ids of the first such scene.
        """
        if not self.scenes:
            return
        text = f"entries of {benchmark.name}, split {split!r}, name an object that their scene does not have"
        fix = "run the rule `prepare` again with -f"
        if "skip_unmatched" in index.content:
            fix = (
                "get scan and annotations of one release (ScanNet: the scan's aggregation file), or set "
                f"datasets.{index.dataset}.skip_unmatched_annotations: true to leave such entries out"
            )
        if not index.skip_unmatched:
            raise AnnotationError(
                f"object {self.object_id} is not in scene {self.first} ({self.scenes.total()} of {self.total} {text})",
                where=self.where,
                allowed=f"objects of scene {self.first}: {', '.join(map(str, sorted(there))) or '(none)'}",
                fix=fix,
            )
        self._count("annotations_of_missing_objects", text, benchmark)

    def _count(self, kind: str, text: str, benchmark: Benchmark) -> Note:
        count, scenes = self.scenes.total(), tuple(sorted(self.scenes))
        benchmark.left_out.append(Note(kind, f"{text}: left out", count, out_of=self.total, scenes=scenes))
        return benchmark.left_out[-1]
