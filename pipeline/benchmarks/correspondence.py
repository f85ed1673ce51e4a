"""Multi-view correspondence of the model's own visual tokens, which 3DRS finds to correlate with task performance.

No annotation: one sample per scene of the split. The model is run on the scene's views, and the mean cosine of token pairs of
different views that fall into the same voxel is taken (metrics/correspondence.py). ``different_voxel`` is the same for
pairs in different voxels, ``margin`` the difference: a model whose tokens are all alike has a high score and no margin.
Source: 3DRS (NeurIPS 2025), 2.1.2; formula: docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.benchmarks._results import Results
from pipeline.benchmarks.base import MetricResult, RepresentationBenchmark
from pipeline.core.options import Options
from pipeline.metrics.correspondence import correspondence
from pipeline.scenes.geometry import voxel_ids
from pipeline.scenes.types import Answer, ModelOutput, Sample

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex


class CorrespondenceOptions(Options):
    """Options: what counts as the same place, and whose states are compared."""

    voxel_m: float = Field(
        0.1, ge=1e-3, le=10, description="Edge of a voxel in metres (paper: 0.1, for 14 x 14 tokens a view)."
    )
    layer: int = Field(-1, description="LLM layer whose states are compared; -1: after the last norm (paper).")


class CorrespondenceBenchmark(RepresentationBenchmark):
    """Mean cosine of visual tokens that see the same place from different views."""

    options_model = CorrespondenceOptions
    headline = "same_voxel"
    options: CorrespondenceOptions

    @property
    def layer(self) -> int:
        return self.options.layer

    def measure(self, states: NDArray[np.float32], points: NDArray[np.float32], valid: NDArray[np.bool_]) -> ModelOutput:
        """Measure mean cosines of states of different views, in the same voxel (``value``) and in others (``scores``)."""
        found = correspondence(states, voxel_ids(points, valid, self.options.voxel_m))
        value = found.same_voxel if found.same_pairs and math.isfinite(found.same_voxel) else None
        different = found.different_voxel if found.different_pairs else 0.0
        return ModelOutput(value=value, count=found.same_pairs, scores=(different, float(found.different_pairs)))

    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return one sample per scene, in manifest order; the sample's id is the scene's."""
        return [
            Sample(sample_id=r.scene_id, scene_id=r.scene_id, benchmark=self.name, task=self.task) for r in index.split(split)
        ]

    def training_samples(self, index: SceneIndex) -> list[Sample]:
        """Return none: this benchmark is measured, not trained."""
        return []

    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Parse ``value``/``count`` (same-voxel cosine and pairs) and ``scores`` (the same for different voxels).

        A scene without any pair is parsed (``value`` None, ``count`` 0); a non-finite value over pairs is not.
        """
        if output.count <= 0:
            return Answer(scores=tuple(output.scores))
        if output.value is None or not math.isfinite(output.value):
            return Answer(parsed=False)
        return Answer(value=float(output.value), count=int(output.count), scores=tuple(output.scores))

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute the cosines ``same_voxel``, ``different_voxel`` and ``margin``: means over the scenes that have pairs.

        ``no_pairs``: share of scenes left out for want of a pair, in percent. ``pairs``: mean number of pairs.
        """
        results = Results(samples, self.bootstrap)
        same = np.array([a.value if a.value is not None and a.count > 0 else np.nan for a in answers], dtype=np.float64)
        different = np.array(
            [a.scores[0] if len(a.scores) == 2 and a.scores[1] > 0 else np.nan for a in answers], dtype=np.float64
        )
        margin = same - different
        for metric, values in (("same_voxel", same), ("different_voxel", different), ("margin", margin)):
            results.mean(metric, values, scale=1.0, keep=np.isfinite(values))
        results.mean("pairs", [a.count for a in answers], scale=1.0)
        results.mean("no_pairs", [a.parsed and a.count <= 0 for a in answers])
        results.unparsed(answers)
        return results.found
