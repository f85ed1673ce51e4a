"""Control: the features of another teacher, but of another scene.

What a student gains from them it gains from having a smooth regression target at all, not from 3D knowledge of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from pydantic import Field

from pipeline.core.errors import DataError
from pipeline.core.options import Options
from pipeline.core.provenance import seed_for
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.types import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures


class ShuffledOptions(Options):
    """Options: the teacher whose features are shuffled, and the seed of the rearrangement."""

    of: str = Field("geometry", description="Name of the teacher whose stored features are used.")
    seed: int = Field(0, ge=0, description="Seed of the rearrangement of scenes.")


class ShuffledTeacher(Teacher):
    """Derived: stores no data, only which scene stands in for which."""

    options_model = ShuffledOptions
    is_view = True
    options: ShuffledOptions

    @property
    def dim(self) -> int:
        return self._refuse()

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return self._refuse()

    def encode(self, scene: Scene) -> TeacherFeatures:
        return self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError("a derived teacher has no network; its store is a view of source()'s store")

    def feature_layer(self) -> str:
        return f"features of another scene, teacher {self.options.of}, seed {self.options.seed}"

    def source(self) -> str:
        return self.options.of

    def scene_map(self, scene_ids: Sequence[str]) -> dict[str, str]:
        """Return one cycle through all scenes (Sattolo's algorithm): no scene keeps its own features, each is used once."""
        order = sorted(scene_ids)
        if len(order) < 2:
            raise DataError(
                f"features cannot be shuffled among {len(order)} scenes",
                where=f"teacher {self.name!r}",
                allowed="2 or more scenes in every split of features.splits",
            )
        random = np.random.default_rng(seed_for("shuffled", self.options.seed, *order))
        cycle = list(order)
        for last in range(len(cycle) - 1, 0, -1):
            other = int(random.integers(last))
            cycle[last], cycle[other] = cycle[other], cycle[last]
        return dict(zip(order, cycle, strict=True))
