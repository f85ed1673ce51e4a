"""Conversion of per-sample values to ``MetricResult``: value, n and bootstrap replicates, over all and per subset."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.benchmarks.base import MetricResult
from pipeline.metrics.stats import Bootstrap, corpus_replicates, mean_replicates, scene_weights
from pipeline.scenes.types import Answer, Sample

Combine = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Results:
    """A collector of the metrics of one run on one benchmark. Subset ``all`` comes first, then the samples' own, sorted."""

    def __init__(self, samples: Sequence[Sample], bootstrap: Bootstrap):
        self.samples = samples
        self.found: list[MetricResult] = []
        scenes = sorted({s.scene_id for s in samples})
        position = {scene: i for i, scene in enumerate(scenes)}
        self.scene_index = np.array([position[s.scene_id] for s in samples], dtype=np.int64)
        self.weights = scene_weights(scenes, bootstrap.replicates, bootstrap.seed)
        self.subsets: dict[str, NDArray[np.int64]] = {"all": np.arange(len(samples))}
        for name in sorted({subset for s in samples for subset in s.subsets}):
            self.subsets[name] = np.array([i for i, s in enumerate(samples) if name in s.subsets], dtype=np.int64)

    def mean(
        self,
        metric: str,
        values: ArrayLike,
        *,
        scale: float = 100.0,
        subsets: bool = True,
        reference: str = "",
        keep: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add a metric: the mean of ``values`` (n,) times ``scale``; ``keep`` (n,) excludes samples from it.

        ``reference`` names a level to read the metric against (see ``MetricResult``).
        """
        table = np.asarray(values, dtype=np.float64) * scale
        for subset, rows in self.subsets.items():
            chosen = rows if keep is None else rows[keep[rows]]
            if not len(chosen) or (subset != "all" and not subsets):
                continue
            self.found.append(
                MetricResult(
                    metric=metric,
                    subset=subset,
                    value=float(table[chosen].mean()),
                    n=len(chosen),
                    n_scenes=len(np.unique(self.scene_index[chosen])),
                    per_sample={self.samples[i].sample_id: float(table[i]) for i in chosen},
                    replicates=mean_replicates(table[chosen], self.scene_index[chosen], self.weights),
                    reference=reference,
                )
            )

    def corpus(
        self,
        metric: str,
        statistics: NDArray[np.float64],
        combine: Combine,
        *,
        per_sample: ArrayLike | None = None,
        subsets: bool = True,
        reference: str = "",
    ) -> None:
        """Add a corpus metric: ``combine`` maps sums of the samples' ``statistics`` (n,K) to scores. Nothing is averaged.

        ``per_sample`` (n,): values of single samples where the metric defines them (their mean is not the set's value).
        """
        single = None if per_sample is None else np.asarray(per_sample, dtype=np.float64)
        for subset, rows in self.subsets.items():
            if not len(rows) or (subset != "all" and not subsets):
                continue
            chosen = statistics[rows]
            self.found.append(
                MetricResult(
                    metric=metric,
                    subset=subset,
                    value=float(combine(chosen.sum(0, keepdims=True))[0]),
                    n=len(rows),
                    n_scenes=len(np.unique(self.scene_index[rows])),
                    per_sample={} if single is None else {self.samples[i].sample_id: float(single[i]) for i in rows},
                    replicates=corpus_replicates(chosen, self.scene_index[rows], self.weights, combine),
                    reference=reference,
                )
            )

    def unparsed(self, answers: Sequence[Answer]) -> None:
        """Add the share of outputs that could not be used, in percent."""
        self.mean("unparsed", [not a.parsed for a in answers])
