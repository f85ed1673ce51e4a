"""What teachers with a network of their own share: preparing, starting and encoding once the network is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.scene import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures


class NetworkTeacher(Teacher):
    """A teacher whose ``load`` sets ``_network``, an object with ``prepare`` and ``start`` (see Teacher for both)."""

    _network: Any = None

    def prepare(self, scene: Scene) -> Any:
        return self._loaded.prepare(scene)

    def start(self, prepared: Any) -> Callable[[], TeacherFeatures]:
        started: Callable[[], TeacherFeatures] = self._loaded.start(prepared)
        return started

    def encode(self, scene: Scene) -> TeacherFeatures:
        return self.start(self.prepare(scene))()

    @property
    def _loaded(self) -> Any:
        if self._network is None:
            raise TypeError("call load before encode")
        return self._network
