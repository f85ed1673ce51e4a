"""Ground-truth boxes of grounding samples, and what the scene's candidates could reach: each scene is compared once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.boxes import as_boxes, iou
from pipeline.scenes.types import Sample

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex


class Targets:
    """Boxes and overlaps of the scenes of a prepared dataset, scene by scene when they are asked for."""

    def __init__(self, index: SceneIndex):
        self._index = index
        self._scenes: dict[str, tuple[dict[int, int], NDArray[np.float64], NDArray[np.float64]]] = {}

    def _scene(self, scene_id: str) -> tuple[dict[int, int], NDArray[np.float64], NDArray[np.float64]]:
        """Return the row of every object id, boxes (O,6) and the IoU of candidates with objects (N,O)."""
        if scene_id not in self._scenes:
            record = self._index.records[scene_id]
            rows = {item.object_id: row for row, item in enumerate(record.objects)}
            boxes = as_boxes([item.box for item in record.objects])
            self._scenes[scene_id] = rows, boxes, iou(record.candidate_boxes(), boxes)
        return self._scenes[scene_id]

    def boxes(self, sample: Sample) -> NDArray[np.float64]:
        """Return the ground-truth boxes (G,6) of a sample's targets."""
        rows, boxes, _ = self._scene(sample.scene_id)
        return boxes[[rows[i] for i in sample.target_ids]]

    def overlaps(self, sample: Sample) -> NDArray[np.float64]:
        """Return the IoU of the scene's candidates with the sample's targets (N,G)."""
        rows, _, overlaps = self._scene(sample.scene_id)
        return overlaps[:, [rows[i] for i in sample.target_ids]]
