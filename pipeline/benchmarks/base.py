"""Interface of a benchmark: samples from official files, parsing, per-sample scores and set metrics.

A member is ``benchmarks/<kind>.py``. Prompts are built in prompts.py (one builder for training and evaluation).

tests/conformance/test_benchmarks.py asks of each, on the built-in rooms: every option has a description and the file
imports no torch; ``generation_tokens`` is above 0 for the tasks caption and qa alone; samples have the benchmark's name and
task, unique ids and scenes of their split, in the same order each time; training samples of caption and qa have an
``answer``, captions an ``input_box``; ``score`` gives ``headline`` over all samples and ``unparsed``
(``Results.unparsed``), with replicates or values per sample; the right answers are parsed and beat empty text and NaN,
which ``parse`` counts and never raises for. docs/extending.md has a complete file.

An edit to ``score`` makes only the scores again, one to ``parse``, ``tune`` or ``measure`` also the answers, and none of them a
training. The same holds for what only they call: functions of the file, and methods whose names begin with ``_score_``,
``_parse_``, ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.notes import Note
from pipeline.core.options import Options
from pipeline.metrics.stats import Bootstrap
from pipeline.scenes.types import Answer, ModelOutput, Sample, Task

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric over one subset of a run's samples.

    ``value`` over the whole set (in the unit of the literature: percent for shares, x100 for caption scores); ``n`` samples;
    ``per_sample``: sample_id -> value for metrics that are means over samples (same unit), empty otherwise;
    ``replicates`` (R,): the metric on R bootstrap resamples of scenes (metrics/stats.py), the same resamples for
    every run of the same samples, so that differences of runs are paired. A benchmark may leave them empty when
    ``per_sample`` is there: the step `score` then fills them in.
    ``reference``: "" for a measurement of the model; else the name of a level to read ``metric`` against that no model
    was asked for (``chance``, ``best_constant``, ``oracle``, ...). ``n_scenes``: scenes of the samples.
    """

    metric: str
    subset: str
    value: float
    n: int
    per_sample: dict[str, float]
    replicates: NDArray[np.float64]
    reference: str = ""
    n_scenes: int = 0


class Benchmark(ABC):
    options_model: ClassVar[type[Options]] = Options
    bootstrap: Bootstrap = Bootstrap()
    """Scene resamples behind ``MetricResult.replicates``; the step `score` sets it from its spec before ``score``."""
    task: ClassVar[Task]
    headline: ClassVar[str]
    """Name of the metric (subset ``all``) that stands for the benchmark in overview tables."""
    generation_tokens: ClassVar[int] = 0
    """Upper limit of generated tokens (0: nothing is generated)."""

    def __init__(self, name: str, options: Options):
        self.name = name
        self.options = options
        self.left_out: list[Note] = []
        """What reading samples left out, in the order of reading."""

    @abstractmethod
    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return a split's evaluation samples, in a stable order, with unique ``sample_id``s. Raise AnnotationError."""

    def training_samples(self, index: SceneIndex) -> list[Sample]:
        """Return training samples (split train), e.g. one per (question, answer). Default: ``samples(index, "train")``."""
        return self.samples(index, "train")

    def tuning_samples(self, index: SceneIndex) -> list[Sample]:
        """Return training samples whose outputs ``tune`` needs before anything is parsed. Default: none."""
        return []

    def tune(self, samples: Sequence[Sample], outputs: Sequence[ModelOutput], index: SceneIndex) -> None:
        """Choose what parsing leaves free, on outputs to training samples; called only where there are any."""
        raise NotImplementedError(f"{self.name} asks for training samples and does not tune")

    @abstractmethod
    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Turn a model output into an answer. Never raise: what cannot be parsed is ``Answer(parsed=False)`` and counted."""

    @abstractmethod
    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute exact official metrics over all samples and per subset. ``answers[i]`` belongs to ``samples[i]``."""


class RepresentationBenchmark(Benchmark):
    """A benchmark that asks nothing: it measures the visual tokens of the model itself, one sample per scene."""

    task: ClassVar[Task] = "representation"

    @property
    @abstractmethod
    def layer(self) -> int:
        """Return which states are measured, as in ``LoadedBackbone.language`` (-1: after the last norm)."""

    @abstractmethod
    def measure(self, states: NDArray[np.float32], points: NDArray[np.float32], valid: NDArray[np.bool_]) -> ModelOutput:
        """Measure one scene: ``states`` (V,N,C) of visual tokens, the mean world ``points`` (V,N,3) in metres that their
        cells show, and whether a cell has any (``valid`` (V,N))."""
