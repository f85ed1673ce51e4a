"""The class to derive from for a teacher that runs a network: docs/extending.md has a worked example.

    class MyTeacher(NetworkTeacher):
        def load(self, weights, device):
            model = ...                                  # of an installed package, in evaluation mode, on ``device``
            self.network = ...                           # teachers._common.wrapped.WrappedNetwork, or your own
            return state_digest(model.state_dict())      # pipeline.core.weights: what the store remembers of the weights

Torch and the model's package are imported inside ``load``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.scenes.types import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures


class NetworkTeacher(Teacher):
    """A teacher whose ``load`` sets ``network``, an object with ``prepare`` and ``start`` (see Teacher for both).

    ``dim``, ``grid`` and ``load`` are left to the derived class. Set ``set_dependent`` (and ``order_dependent``) where the
    views of a scene see each other.
    """

    reads_depth = False
    network: Any = None
    """Set by ``load``."""

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
        """Return this teacher's options at values that need less memory than the chosen ones."""
        options = self.options
        passes = 1 if self.set_dependent else getattr(options, "views_per_pass", 1)
        cheaper = ["precision: bfloat16"] if getattr(options, "precision", "bfloat16") == "float32" else []
        cheaper += ["predictions: false"] if getattr(options, "predictions", False) else []
        return cheaper + ([f"views_per_pass: {passes // 2}"] if passes > 1 else [])

    @property
    def _loaded(self) -> Any:
        if self.network is None:
            raise TypeError("call load before encode")
        return self.network
