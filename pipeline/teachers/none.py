"""No teacher: the baseline. The same training code runs without an alignment term."""

from __future__ import annotations

from typing import NoReturn

from pipeline.core.options import Options
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.types import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures


class NoneOptions(Options):
    """There is nothing to choose."""


class NoTeacher(Teacher):
    """Has no features: ``has_features`` is False, so nothing ever asks for them."""

    options_model = NoneOptions
    has_features = False

    @property
    def dim(self) -> int:
        return 0

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return self._refuse()

    def encode(self, scene: Scene) -> TeacherFeatures:
        return self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError("the teacher `none` has no features; ask `has_features` first")
