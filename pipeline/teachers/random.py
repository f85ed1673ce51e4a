"""Control: a frozen network of the VGGT architecture that has learned nothing.

What a student gains from it, it gains from image structure that any smooth network passes on, not from 3D knowledge.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from pipeline.core.errors import ConfigError
from pipeline.core.hf_folder import checked_layers
from pipeline.core.options import Options
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.network import NetworkTeacher
from pipeline.teachers.vggt.config import ROOMS
from pipeline.teachers.vggt.images import image_rule


class RandomOptions(Options):
    """Options: the random network."""

    seed: int = Field(0, ge=0, description="Seed of its weights.")
    layers: tuple[int, ...] = Field((-1,), min_length=1, description="Aggregator layers, concatenated; -1 is the last.")

    @field_validator("layers")
    @classmethod
    def _exist_once(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        try:
            checked_layers(layers, ROOMS.depth)
        except ConfigError as error:
            raise ValueError(f"{error.what}{f' (allowed: {error.allowed})' if error.allowed else ''}") from None
        return layers


class RandomTeacher(NetworkTeacher):
    """The size ``rooms`` of VGGT with its initial weights."""

    options_model = RandomOptions
    order_dependent = True
    set_dependent = True
    options: RandomOptions

    @property
    def dim(self) -> int:
        return len(self.options.layers) * ROOMS.dim

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return image_rule(height_px, width_px, ROOMS).grid

    def feature_layer(self) -> str:
        return f"untrained aggregator, layers {list(self.options.layers)}"

    def load(self, weights: Path | None, device: str) -> str:
        from pipeline.teachers.vggt.features import random_features

        self.network, value = random_features(ROOMS, self.options.seed, self.options.layers, device)
        return value
