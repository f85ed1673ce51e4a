"""Scene data for training and evaluation, computed once: pixels, positions of visual cells, boxes in cells, teacher.

Entries are small (no images, no depth) and kept least-recently-used up to a stated number of megabytes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.backbones.base import LoadedBackbone
from pipeline.features.store import FeatureReader
from pipeline.scenes import geometry
from pipeline.scenes.grid import resample_tokens, seen_cells
from pipeline.scenes.types import Scene
from pipeline.study.recipe import Recipe
from pipeline.training.positions import discretise
from pipeline.training.unseen import some_seen


@dataclass(frozen=True, slots=True)
class SceneEntry:
    """A scene as tensors. M = V*G*K visual tokens in view, row, column order; N boxes.

    ``pixels`` (V, ...) of the backbone; ``size_px`` (H,W) of the images; ``cell_means_m`` (M,3) mean world point per cell;
    ``cell_valid`` (M,) bool, the cell has valid depth; ``cell_voxels`` (M,3) and ``box_voxels`` (N,3) int64 numbers for
    the position encoding; ``pooling`` (N,M) rows that sum to 1, or to 0 where ``box_visible`` (N,) is False; ``teacher``
    (M,D) and ``teacher_weights`` (M,) on the student's cells, or None: weights of cells that the teacher did not see are 0,
    None stands for 1 everywhere.
    """

    scene_id: str
    size_px: tuple[int, int]
    pixels: torch.Tensor
    cell_means_m: torch.Tensor
    cell_valid: torch.Tensor
    cell_voxels: torch.Tensor
    box_voxels: torch.Tensor
    pooling: torch.Tensor
    box_visible: torch.Tensor
    teacher: torch.Tensor | None = None
    teacher_weights: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape: views, image size. Scenes of one shape can be stacked."""
        return (len(self.pixels), *self.size_px)

    def nbytes(self) -> int:
        """Return the memory of all tensors in bytes."""
        values = (getattr(self, f.name) for f in fields(self))
        return sum(v.numel() * v.element_size() for v in values if isinstance(v, torch.Tensor))


def pooling_weights(coverage: NDArray[np.floating], min_fraction: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return weights (N,M) of visual cells in boxes and whether a box is seen at all (N,), from coverage (N,V,G,K).

    A cell counts when at least ``min_fraction`` of its pixels lie in the box (reference: 91 of 729, equal weights), weighted by
    that share. On coarse grids small objects fill no cell that far: then all cells they touch count, by share. A box
    that no cell touches is unseen (weights 0); the grounding head has a learned embedding for those.
    """
    flat = coverage.reshape(len(coverage), math.prod(coverage.shape[1:])).astype(np.float64)  # also of no box at all
    enough = np.where(flat >= min_fraction, flat, 0.0)
    chosen = np.where(enough.any(1, keepdims=True), enough, flat)
    total = chosen.sum(1, keepdims=True)
    weights = np.divide(chosen, total, out=np.zeros_like(chosen), where=total > 0)
    return weights.astype(np.float32), total[:, 0] > 0


def scene_entry(
    scene: Scene, boxes: NDArray[np.float64], loaded: LoadedBackbone, recipe: Recipe, features: FeatureReader | None = None
) -> SceneEntry:
    """Compute a scene's entry for ``boxes`` (N,6) on the backbone's grid. Geometry is float32 throughout."""
    record = scene.record
    grid = loaded.view_grid(*record.image_size)
    points, valid = geometry.unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    means, share = geometry.cell_means(points, valid, grid)
    pooling, seen = pooling_weights(geometry.box_coverage(points, valid, boxes, grid), recipe.object_min_fraction)
    means = means.reshape(-1, 3)
    cell_valid = share.reshape(-1) > 0
    teacher, weights = _teacher_tokens(scene, loaded, recipe, features) if features else (None, None)
    return SceneEntry(
        scene_id=record.scene_id,
        size_px=record.image_size,
        pixels=loaded.preprocess(scene.rgb),
        cell_means_m=torch.from_numpy(means),
        cell_valid=torch.from_numpy(cell_valid),
        cell_voxels=torch.from_numpy(discretise(np.where(cell_valid[:, None], means, 0.0))),
        box_voxels=torch.from_numpy(discretise(boxes.reshape(-1, 6)[:, :3])),
        pooling=torch.from_numpy(pooling),
        box_visible=torch.from_numpy(seen),
        teacher=teacher,
        teacher_weights=weights,
    )


def _teacher_tokens(
    scene: Scene, loaded: LoadedBackbone, recipe: Recipe, features: FeatureReader
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return teacher tokens (M,D) averaged into the student's cells and their weights in the alignment loss (M,).

    The weight is the confidence where that is wanted and there, else 1, and 0 where the teacher saw less than half of the
    cell. None when every weight is 1. Raise StoreError when the teacher saw no cell of the scene.
    """
    record = scene.record
    found = features.read(record.scene_id, record.frame_ids)
    target = loaded.view_grid(*record.image_size)
    tokens = resample_tokens(torch.from_numpy(found.tokens), found.grid, target, recipe.resample, found.seen)
    seen = torch.from_numpy(some_seen(seen_cells(target, found.window), record.scene_id, found.window))
    weights = None
    if recipe.confidence_weighting and found.confidence is not None:
        confidence = torch.from_numpy(found.confidence)[..., None]
        weights = resample_tokens(confidence, found.grid, target, recipe.resample, found.seen)[..., 0] * seen
    elif not seen.all():
        weights = seen.to(torch.float32).expand(len(tokens), -1, -1)
    return tokens.flatten(0, 2), None if weights is None else weights.reshape(-1)


class EntryCache:
    """Least-recently-used scene entries up to ``limit_mb`` megabytes; ``make`` computes a missing one. One thread only."""

    def __init__(self, make: Callable[[str], SceneEntry], limit_mb: int):
        self._make, self._limit = make, limit_mb * 2**20
        self._entries: OrderedDict[str, SceneEntry] = OrderedDict()
        self._bytes = 0

    def get(self, scene_id: str) -> SceneEntry:
        """Return the entry of a scene; an entry larger than the limit is not kept."""
        if scene_id in self._entries:
            self._entries.move_to_end(scene_id)
            return self._entries[scene_id]
        entry = self._make(scene_id)
        self._entries[scene_id] = entry
        self._bytes += entry.nbytes()
        while self._bytes > self._limit and self._entries:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.nbytes()
        return entry

    @property
    def nbytes(self) -> int:
        """Return the memory of what is kept, in bytes."""
        return self._bytes
