"""Multi3DRefer: a description of no, one or several objects; F1@0.25 and F1@0.5.

Official file ``multi3drefer_{split}.json``: a list of {scene_id, object_ids, object_name, ann_id, description, eval_type}.
(scene_id, ann_id) identifies a query, as in the official script. Source: Multi3DRefer (ICCV 2023); 3DRS appendix.

Prediction: nothing when the zero target is the most probable, else candidates in falling order until their probabilities
reach ``cumulative_probability``. That number is free; the reference uses 0.4, apparently chosen on the split that it
reports. ``tune_scenes`` chooses it for each run on training scenes instead; what was used is the metric
``cumulative_probability``. Score: mean over queries of the F1 after one-to-one matching; zero-target queries count 1 or 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from pipeline.benchmarks._annotations import AnnotationOptions, Entry, read_in_split, unique_samples
from pipeline.benchmarks._results import Results
from pipeline.benchmarks._targets import Targets
from pipeline.benchmarks.base import Benchmark, MetricResult
from pipeline.core.options import Options
from pipeline.metrics.boxes import THRESHOLDS, chance_f1, choose_cumulative, queries_f1, usable_choice
from pipeline.scenes.types import Answer, ModelOutput, Sample, SceneRecord

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex

EVAL_TYPES = ("zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt")
"""Zero, single, multiple targets; w_d: with distractors of the same class in the scene."""


class Multi3DReferOptions(AnnotationOptions):
    """Options: how many candidates are taken."""

    cumulative_probability: float = Field(
        0.4, gt=0, le=1, description="Candidates are taken until their probabilities sum to this (reference: 0.4)."
    )
    tune_scenes: int = Field(
        0,
        ge=0,
        description="Choose cumulative_probability for each run on this many training scenes, as the best mean of F1@0.25 and "
        "F1@0.5 (0: as given). They are answered before the reported split.",
    )


def targets_fit(eval_type: str, targets: int) -> bool:
    """Return whether an evaluation type goes with a number of targets."""
    if eval_type.startswith("zt"):
        return targets == 0
    return targets == 1 if eval_type.startswith("st") else targets > 1


STEPS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Cumulative probabilities that tuning compares."""


class Multi3DRefer(Benchmark):
    """Grounding of any number of objects per description."""

    options_model = Multi3DReferOptions
    task = "grounding"
    headline = "f1@0.25"
    options: Multi3DReferOptions

    def __init__(self, name: str, options: Options):
        super().__init__(name, options)
        self.cumulative_probability = self.options.cumulative_probability

    def tuning_samples(self, index: SceneIndex) -> list[Sample]:
        """Return the samples of the first ``tune_scenes`` training scenes."""
        chosen = {record.scene_id for record in index.split("train")[: self.options.tune_scenes]}
        return [s for s in self.samples(index, "train") if s.scene_id in chosen] if chosen else []

    def tune(self, samples: Sequence[Sample], outputs: Sequence[ModelOutput], index: SceneIndex) -> None:
        """Take the step with the best mean F1 over both thresholds; of equals the nearest to the given probability."""
        targets = Targets(index)
        boxes = [targets.boxes(sample) for sample in samples]
        found: list[tuple[float, float, float]] = []
        for step in STEPS:
            self.cumulative_probability = step
            answers = [self.parse(sample, output) for sample, output in zip(samples, outputs, strict=True)]
            usable = np.array([answer.parsed for answer in answers], dtype=np.float64)
            f1 = queries_f1([answer.boxes for answer in answers], boxes) * usable[:, None]
            found.append((round(float(f1.mean()), 9), -abs(step - self.options.cumulative_probability), step))
        self.cumulative_probability = max(found)[2]

    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return one sample per description, id ``scene|annotation``, in file order."""
        entries = read_in_split("multi3drefer", self, index, split, lambda e: e.wholes("object_ids"))
        return unique_samples((self._sample(entry, record), entry) for entry, record, _ in entries)

    def _sample(self, entry: Entry, record: SceneRecord) -> Sample:
        ids = entry.wholes("object_ids")
        eval_type = entry.text("eval_type")
        if eval_type not in EVAL_TYPES:
            raise entry.fault(f"eval_type is {eval_type!r}", allowed=", ".join(EVAL_TYPES))
        if len(set(ids)) != len(ids) or not targets_fit(eval_type, len(ids)):
            raise entry.fault(f"object_ids {list(ids)} do not go with eval_type {eval_type!r}")
        return Sample(
            sample_id=f"{record.scene_id}|{entry.identifier('ann_id')}",
            scene_id=record.scene_id,
            benchmark=self.name,
            task=self.task,
            text=entry.text("description").strip(),
            target_ids=ids,
            any_number=True,
            subsets=(eval_type,),
            metadata={"object_name": entry.text("object_name")},
        )

    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Return the boxes that the cumulative-probability rule takes, most probable first, with their probabilities."""
        choice = usable_choice(output.boxes, output.probabilities)
        if choice is None:
            return Answer(parsed=False)
        boxes, probabilities = choice
        chosen = choose_cumulative(probabilities, self.cumulative_probability)
        return Answer(
            boxes=tuple(tuple(boxes[i].tolist()) for i in chosen),
            scores=tuple(float(probabilities[i]) for i in chosen),
            value=self.cumulative_probability,
        )

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute ``f1@t`` and its levels ``chance`` (one of N candidates or nothing, at random) and ``empty`` (nothing).

        ``cumulative_probability``: the one that the answers were taken with, in percent. An output that could not be parsed
        scores 0 also where "no object" is right: saying nothing usable is no answer.
        """
        results = Results(samples, self.bootstrap)
        targets = Targets(index)
        boxes = [targets.boxes(sample) for sample in samples]
        usable = np.array([a.parsed for a in answers], dtype=np.float64)
        scores = queries_f1([a.boxes for a in answers], boxes) * usable[:, None]
        for column, t in enumerate(THRESHOLDS):
            results.mean(f"f1@{t:g}", scores[:, column])
        chance = np.array([chance_f1(targets.overlaps(s)) for s in samples]).reshape(len(samples), len(THRESHOLDS))
        for column, t in enumerate(THRESHOLDS):
            results.mean(f"f1@{t:g}", chance[:, column], reference="chance")
            results.mean(f"f1@{t:g}", [not s.target_ids for s in samples], reference="empty")
        used = next((a.value for a in answers if a.value is not None), self.options.cumulative_probability)
        results.mean("cumulative_probability", [used] * len(samples), subsets=False)
        results.unparsed(answers)
        return results.found
