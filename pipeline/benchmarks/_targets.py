"""Ground-truth boxes of grounding samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.boxes import as_boxes
from pipeline.scene import Sample

if TYPE_CHECKING:
    from pipeline.index import SceneIndex


def target_boxes(samples: Sequence[Sample], index: SceneIndex) -> list[NDArray[np.float64]]:
    """Ground-truth boxes (G,6) of every sample's targets."""
    tables: dict[str, dict[int, tuple[float, ...]]] = {}
    found = []
    for sample in samples:
        if sample.scene_id not in tables:
            tables[sample.scene_id] = {o.object_id: o.box for o in index.records[sample.scene_id].objects}
        table = tables[sample.scene_id]
        found.append(as_boxes([table[i] for i in sample.target_ids]))
    return found
