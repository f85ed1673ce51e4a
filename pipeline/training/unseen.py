"""Cells of the student that the teacher never saw: counted before the first step, from geometry alone.

A teacher that crops (VGGT and FLARE do with portraits) says nothing about the rest of the image. Such cells have weight 0 in
the alignment loss; their number is printed and recorded in the run's manifest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones.base import LoadedBackbone
from pipeline.core.errors import StoreError
from pipeline.features.store import FeatureReader
from pipeline.scenes.grid import Window, same_view, seen_cells
from pipeline.scenes.index import SceneIndex
from pipeline.study.recipe import Recipe

WORTH_SAYING = 0.01
"""Share of unseen cells above which ``train`` prints a warning."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """A count: ``cells`` of ``out_of`` visual cells of a run's training scenes have weight 0, in ``scenes`` scenes.

    ``seen`` is the smallest window of the image that a teacher saw; ``shifted`` scenes cannot be resampled as ``adaptive``
    (their teacher looks at another part of the image, grid.py), ``unweighted`` ones have no confidence though it was wanted.
    """

    cells: int
    out_of: int
    scenes: int
    seen: Window
    shifted: int
    unweighted: int

    @property
    def share(self) -> float:
        return self.cells / self.out_of if self.out_of else 0.0

    def lines(self, teacher: str, backbone: str) -> list[str]:
        """Return what a user has to know, one line each; none when all is well."""
        of, found = f"teacher {teacher!r}, backbone {backbone!r}", []
        if self.share > WORTH_SAYING:
            x0, y0, x1, y1 = self.seen
            found.append(
                f"{of}: {self.share:.1%} of the visual cells ({self.scenes} scenes) have weight 0 in the alignment loss: the "
                f"teacher's crop does not show them (x {x0:.2f} to {x1:.2f}, y {y0:.2f} to {y1:.2f} of the image)"
            )
        if self.shifted:
            found.append(
                f"{of}: `resample: adaptive` is for teachers that see what the student sees; features of {self.shifted} scenes "
                "are averaged by exact overlap instead, as `area` does"
            )
        if self.unweighted:
            found.append(f"{of}: `confidence_weighting` is on, but {self.unweighted} scenes have no confidence: weight 1 there")
        return found


def some_seen(cells: NDArray[np.bool_], scene_id: str, seen: Window) -> NDArray[np.bool_]:
    """Return ``cells`` (G,K). Raise StoreError when the teacher saw none of them."""
    if cells.any():
        return cells
    x0, y0, x1, y1 = seen
    raise StoreError(
        f"the teacher saw none of the student's {cells.size} cells of a view of scene {scene_id!r}",
        where=f"the features are about x {x0:.3f} to {x1:.3f}, y {y0:.3f} to {y1:.3f} of the image",
        allowed="at least half of one cell",
        fix="use a teacher that does not crop (vggt has `images: pad`), or leave images of this shape out",
    )


def count_unseen(
    features: FeatureReader, index: SceneIndex, scene_ids: Iterable[str], loaded: LoadedBackbone, recipe: Recipe
) -> Unseen:
    """Count over training scenes. Raise StoreError for a scene of which the teacher saw no cell."""
    cells = total = scenes = shifted = unweighted = 0
    smallest: Window = features.grid.window
    for scene_id in scene_ids:
        record = index.records[scene_id]
        target, seen = loaded.view_grid(*record.image_size), features.seen(scene_id)
        missing = int((~some_seen(seen_cells(target, seen), scene_id, seen)).sum())
        views = len(record.frame_ids)
        cells, total, scenes = cells + views * missing, total + views * target.count, scenes + (missing > 0)
        smallest = min(smallest, seen, key=_area)
        shifted += recipe.resample == "adaptive" and not same_view(features.grid, target, seen)
        unweighted += recipe.confidence_weighting and "confidence" not in features.extras(scene_id)
    return Unseen(cells, total, scenes, smallest, shifted, unweighted)


def _area(window: Window) -> float:
    x0, y0, x1, y1 = window
    return (x1 - x0) * (y1 - y0)
