"""What teachers with a network of their own share: preparing, starting and encoding once the network is loaded, and which of
their options need less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.scene import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures


class NetworkTeacher(Teacher):
    """A teacher whose ``load`` sets ``_network``, an object with ``prepare`` and ``start`` (see Teacher for both)."""

    reads_depth = False
    _network: Any = None

    def prepare(self, scene: Scene) -> Any:
        return self._loaded.prepare(scene)

    def start(self, prepared: Any) -> Callable[[], TeacherFeatures]:
        started: Callable[[], TeacherFeatures] = self._loaded.start(prepared)
        return started

    def encode(self, scene: Scene) -> TeacherFeatures:
        return self.start(self.prepare(scene))()

    def memory_advice(self) -> str:
        advice = self._cheaper()
        return f"teachers.{self.name}: {', '.join(advice)}" if advice else ""

    def _cheaper(self) -> list[str]:
        """Options that this teacher has, at values that need less memory than what is chosen."""
        options, passes = self.options, self._views_per_pass
        cheaper = ["precision: bfloat16"] if getattr(options, "precision", "bfloat16") == "float32" else []
        cheaper += ["predictions: false"] if getattr(options, "predictions", False) else []
        return cheaper + ([f"views_per_pass: {passes // 2}"] if passes > 1 else [])

    @property
    def _views_per_pass(self) -> int:
        """The option of that name where it has an effect, else 1."""
        return 1

    @property
    def _loaded(self) -> Any:
        if self._network is None:
            raise TypeError("call load before encode")
        return self._network
