"""Handling of a scene that does not fit into memory.

A teacher that encodes every view separately goes on with fewer views per pass: the features are the same, and stderr reports
it. A teacher whose features depend on the set of views (VGGT, FLARE, Pi3) never does: fewer views per pass would give other
features under the same name. It stops with a message that names the options.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import EnvironmentFaultError
from pipeline.core.runtime import enough_memory, first_line, out_of_memory
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Scene, SceneRecord
from pipeline.teachers.base import Teacher, TeacherFeatures

Prepared = list[tuple[int, Any]]
"""What a reader makes of a scene: per pass the number of views and what the teacher's ``prepare`` made of them."""


@dataclass(frozen=True, slots=True)
class _Shortage:
    """A pass that did not fit: how many views it had, and the allocator's message."""

    views: int
    message: str


FEWER_SCENES = "fewer scenes at once (extract --readers 1 --in-flight 1); or more memory. Finished scenes are kept."


class Encoder:
    """An encoder of scenes, whole until memory runs out. Reader threads call ``read``, a single thread ``start``."""

    def __init__(self, index: SceneIndex, teacher: Teacher, label: str):
        self.index, self.teacher, self.label = index, teacher, label
        self.views_per_pass: int | None = None
        """None: all views of a scene at once."""

    def read(self, record: SceneRecord) -> Prepared:
        """Decode a scene and prepare its passes."""
        with enough_memory(f"scene {record.scene_id!r} was being read", FEWER_SCENES):
            scene = self.index.load(record.scene_id, depth=self.teacher.reads_depth)
            views = len(record.frame_ids)
            step = min(self.views_per_pass or views, views)
            parts = [scene] if step == views else [_views(scene, at, at + step) for at in range(0, views, step)]
            return [(len(part.record.frame_ids), self.teacher.prepare(part)) for part in parts]

    def start(self, record: SceneRecord, prepared: Prepared) -> Callable[[], TeacherFeatures]:
        """Begin to encode a scene; the returned function waits for its features. EnvironmentFaultError: it does not fit."""
        while True:
            if self.views_per_pass is not None and max(views for views, _ in prepared) > self.views_per_pass:
                prepared = self.read(record)  # it was prepared before memory ran out
            started = self._try(prepared)
            if not isinstance(started, _Shortage):
                return started
            self._shrink(record, started)

    def _try(self, prepared: Prepared) -> Callable[[], TeacherFeatures] | _Shortage:
        passes: list[Callable[[], TeacherFeatures]] = []
        try:
            for _, part in prepared:
                passes.append(self.teacher.start(part))
        except Exception as error:
            if not out_of_memory(error):
                raise
            # Returned, not raised: the error's traceback would keep the tensors of the failed pass alive.
            return _Shortage(prepared[len(passes)][0], first_line(error))
        return passes[0] if len(passes) == 1 else lambda: _joined([ready() for ready in passes])

    def _shrink(self, record: SceneRecord, shortage: _Shortage) -> None:
        """Lower the views per pass from here on, or raise the error that says why that is impossible."""
        _release()
        teacher = self.teacher
        if teacher.set_dependent or shortage.views == 1:
            reason = (
                "its features depend on which views are encoded together, so they are not made in several passes"
                if teacher.set_dependent
                else "a single view does not fit"
            )
            advice = [option for option in (teacher.memory_advice(),) if option]
            raise EnvironmentFaultError(
                f"memory ran out while teacher {teacher.name!r} encoded scene {record.scene_id!r} "
                f"({shortage.views} views at once): {reason}",
                where=shortage.message,
                fix="; or ".join(
                    [*advice, f"fewer or smaller views (datasets.{self.index.dataset}), for all teachers alike", "more memory"]
                )
                + ". Finished scenes are kept.",
            )
        self.views_per_pass = (shortage.views + 1) // 2
        print(
            f"{self.label}: memory ran out with {shortage.views} views at once; every view is encoded by itself, so from here "
            f"on {self.views_per_pass} at once (the features are the same)",
            file=sys.stderr,
            flush=True,
        )


def _release() -> None:
    """Give memory that torch keeps for reuse back to the device."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _views(scene: Scene, start: int, stop: int) -> Scene:
    """Return the scene with some of its views only."""
    record, chosen = scene.record, slice(start, stop)
    some = replace(record, frame_ids=record.frame_ids[chosen], world_from_camera=record.world_from_camera[chosen])
    return Scene(some, scene.rgb[chosen], scene.depth_m[chosen])


def _joined(parts: list[TeacherFeatures]) -> TeacherFeatures:
    """Join features of consecutive views of one scene."""
    if any(part.pose is not None for part in parts):
        raise TypeError("poses relate views to each other, so a teacher that predicts them must say set_dependent")

    def together(values: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
        present = [value for value in values if value is not None]
        return np.concatenate(present) if present else None

    return TeacherFeatures(
        np.concatenate([part.tokens for part in parts]),
        parts[0].grid,
        together([part.confidence for part in parts]),
        together([part.depth for part in parts]),
    )
