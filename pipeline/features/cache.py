"""A least-recently-used cache of decoded scenes with a limit in bytes (0: keeps nothing)."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pipeline.teachers.base import TeacherFeatures


class SceneCache:
    """Scene id -> features. Cached arrays are read-only, because every caller gets the same ones."""

    def __init__(self, limit_bytes: int):
        self._limit, self._used = limit_bytes, 0
        self._scenes: OrderedDict[str, TeacherFeatures] = OrderedDict()
        self._lock = Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes of the arrays held now; never above the limit."""
        return self._used

    def get(self, scene_id: str) -> TeacherFeatures | None:
        with self._lock:
            found = self._scenes.get(scene_id)
            if found is not None:
                self._scenes.move_to_end(scene_id)
            return found

    def put(self, scene_id: str, features: TeacherFeatures) -> None:
        """Keep a scene, dropping the least recently used ones; a scene above the limit by itself is not kept."""
        size = _size(features)
        if size > self._limit:
            return
        for values in _arrays(features):
            values.flags.writeable = False
        with self._lock:
            if scene_id in self._scenes:
                return
            while self._used + size > self._limit:
                self._used -= _size(self._scenes.popitem(last=False)[1])
            self._scenes[scene_id] = features
            self._used += size


def _arrays(features: TeacherFeatures) -> list[NDArray[np.float32]]:
    found = (features.tokens, features.confidence, features.depth, features.pose)
    return [values for values in found if values is not None]


def _size(features: TeacherFeatures) -> int:
    return sum(values.nbytes for values in _arrays(features))
