"""Control: a frozen network of the VGGT architecture that has learned nothing.

What a student gains from it, it gains from image structure that any smooth network passes on, not from 3D knowledge.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.grid import TokenGrid
from pipeline.options import Options
from pipeline.scene import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures

if TYPE_CHECKING:
    from pipeline.nets.vggt.features import FeatureNetwork


class RandomOptions(Options):
    """Which random network."""

    seed: int = Field(0, ge=0, description="Seed of its weights.")
    layers: tuple[int, ...] = Field((-1,), min_length=1, description="Aggregator layers, concatenated; -1 is the last.")


class RandomTeacher(Teacher):
    """The size ``rooms`` of VGGT with its initial weights."""

    options_model = RandomOptions
    code = ("nets",)
    order_dependent = True
    set_dependent = True
    licence = "Apache-2.0"
    options: RandomOptions
    _network: FeatureNetwork | None = None

    @property
    def dim(self) -> int:
        from pipeline.nets.vggt.config import ROOMS

        return len(self.options.layers) * ROOMS.dim

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        from pipeline.nets.vggt.config import ROOMS
        from pipeline.nets.vggt.images import image_rule

        return image_rule(height_px, width_px, ROOMS).grid

    def tap(self) -> str:
        return f"untrained aggregator, layers {list(self.options.layers)}"

    def load(self, weights: Path | None, device: str) -> str:
        from pipeline.nets.vggt.config import ROOMS
        from pipeline.nets.vggt.features import random_features

        self._network, value = random_features(ROOMS, self.options.seed, self.options.layers, device)
        return value

    def encode(self, scene: Scene) -> TeacherFeatures:
        if self._network is None:
            raise TypeError("call load before encode")
        return self._network.encode(scene)
