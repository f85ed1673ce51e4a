"""ScanRefer: one description, one object; Acc@0.25 and Acc@0.5 over all, unique and multiple.

Official file ``ScanRefer_filtered_{split}.json``: a list of {scene_id, object_id (a string of digits), object_name, ann_id,
description, ...}. Source: ScanRefer (ECCV 2020); 3DRS appendix.

*Unique* means: the only object of its class. The official rule maps raw names to 17 ScanNet classes and "others" and
counts the distinct objects that the file itself describes. It is used when the scene's objects carry the attribute
``nyu40class`` (ScanNet). For other datasets the class is the object's own category, and all annotated objects of the
scene are counted, described or not, because nothing says that the file describes every one. Option ``unique_among``
forces either count. The input file is only read: the reference writes its flags back into it.

Where ``nyu40class`` is known there are also the rest of the official script's table, with targets of the class "others"
apart (``in_others``, ``not_in_others``, ``unique_in_others``, ...), and ``unique_reference`` and ``multiple_reference``: the
split of the 3DRS preprocessing, for which wall and floor are classes of their own and no "others".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.benchmarks._annotations import AnnotationOptions, Entry, read_in_split, unique_samples
from pipeline.benchmarks._results import Results
from pipeline.benchmarks._targets import Targets
from pipeline.benchmarks.base import Benchmark, MetricResult
from pipeline.metrics.boxes import THRESHOLDS, paired_iou, usable_choice
from pipeline.scenes.types import Answer, ModelOutput, Sample, SceneObject, SceneRecord

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex

OFFICIAL_CLASSES = frozenset(
    (
        *("cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk"),
        *("curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub"),
    )
)
"""The 17 classes of the official rule; every other nyu40class is "others"."""
REFERENCE_CLASSES = OFFICIAL_CLASSES | {"wall", "floor"}
"""The 3DRS preprocessing keeps these apart; every other nyu40class is "others"."""
OTHERS = "others"

Described = tuple[Entry, SceneRecord, SceneObject]


class ScanReferOptions(AnnotationOptions):
    """Options: how the subsets unique and multiple are separated."""

    unique_among: Literal["auto", "described", "annotated"] = Field(
        "auto",
        description="Count objects of a class among the file's `described` or the scene's `annotated` ones; auto: described "
        "where ScanNet's classes are known (the official rule), else annotated.",
    )


def object_class(item: SceneObject, classes: frozenset[str] = OFFICIAL_CLASSES) -> str:
    """Return the class for unique/multiple: one of ``classes`` or "others" where ``nyu40class`` is known, else the category."""
    if "nyu40class" not in item.attributes:
        return item.category
    return item.attributes["nyu40class"] if item.attributes["nyu40class"] in classes else OTHERS


def class_counts(
    described: Sequence[Described], among: str, classes: frozenset[str] = OFFICIAL_CLASSES
) -> dict[tuple[str, str], int]:
    """Count objects per (scene, class), as the module's text says."""
    counts: Counter[tuple[str, str]] = Counter()
    scenes: dict[str, tuple[SceneRecord, dict[int, SceneObject]]] = {}
    for _, record, item in described:
        scenes.setdefault(record.scene_id, (record, {}))[1][item.object_id] = item
    for scene_id, (record, named) in scenes.items():
        official = any("nyu40class" in o.attributes for o in record.objects)
        use_described = among == "described" or (among == "auto" and official)
        counted = named.values() if use_described else record.objects
        counts.update((scene_id, object_class(o, classes)) for o in counted)
    return dict(counts)


def subset_names(described: Sequence[Described], among: str) -> list[tuple[str, ...]]:
    """Return the subsets of each description, by the rules of the module's text."""
    counts = class_counts(described, among)
    reference = class_counts(described, "described", REFERENCE_CLASSES)
    names: list[tuple[str, ...]] = []
    for _, record, item in described:
        split = "unique" if counts[record.scene_id, object_class(item)] == 1 else "multiple"
        found: tuple[str, ...] = (split,)
        if "nyu40class" in item.attributes:
            place = "in_others" if object_class(item) == OTHERS else "not_in_others"
            once = reference[record.scene_id, object_class(item, REFERENCE_CLASSES)] == 1
            found += (place, f"{split}_{place}", f"{'unique' if once else 'multiple'}_reference")
        names.append(found)
    return names


def offered(samples: Sequence[Sample], targets: Targets) -> NDArray[np.float64]:
    """Return the share of a scene's candidates that reach each threshold with the sample's target (n,T); once per object."""
    known: dict[tuple[str, int], list[float]] = {}
    for sample in samples:
        key = sample.scene_id, sample.target_ids[0]
        if key not in known:
            values = targets.overlaps(sample)
            known[key] = [float((values >= t).mean()) if len(values) else 0.0 for t in THRESHOLDS]
    return np.array([known[s.scene_id, s.target_ids[0]] for s in samples]).reshape(len(samples), len(THRESHOLDS))


class ScanRefer(Benchmark):
    """Grounding of one object per description."""

    options_model = ScanReferOptions
    task = "grounding"
    headline = "acc@0.25"
    options: ScanReferOptions

    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return one sample per description, id ``scene|object|annotation``, in file order."""
        entries = read_in_split("scanrefer", self, index, split, lambda e: (e.whole("object_id"),))
        described = [(e, record, item) for e, record, (item,) in entries]
        names = subset_names(described, self.options.unique_among)
        return unique_samples((self._sample(d, subsets), d[0]) for d, subsets in zip(described, names, strict=True))

    def _sample(self, described: Described, subsets: tuple[str, ...]) -> Sample:
        entry, record, item = described
        return Sample(
            sample_id=f"{record.scene_id}|{item.object_id}|{entry.identifier('ann_id')}",
            scene_id=record.scene_id,
            benchmark=self.name,
            task=self.task,
            text=entry.text("description").strip(),
            target_ids=(item.object_id,),
            subsets=subsets,
            metadata={"object_name": entry.text("object_name"), "category": item.category},
        )

    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Return the most probable of the N real candidates; the zero target never wins here (the official inference rule)."""
        choice = usable_choice(output.boxes, output.probabilities)
        if choice is None:
            return Answer(parsed=False)
        boxes, probabilities = choice
        if not len(boxes):
            return Answer()
        best = int(probabilities[:-1].argmax())
        return Answer(boxes=(tuple(boxes[best].tolist()),), scores=(float(probabilities[best]),))

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute ``acc@t`` and its levels ``chance`` (a random candidate) and ``oracle`` (the best candidate there is)."""
        results = Results(samples, self.bootstrap)
        targets = Targets(index)
        said = [i for i, answer in enumerate(answers) if answer.parsed and answer.boxes]
        reached = np.zeros(len(samples))
        reached[said] = paired_iou([answers[i].boxes[0] for i in said], [targets.boxes(samples[i])[0] for i in said])
        for t in THRESHOLDS:
            results.mean(f"acc@{t:g}", reached >= t)
        shares = offered(samples, targets)
        for column, t in enumerate(THRESHOLDS):
            results.mean(f"acc@{t:g}", shares[:, column], reference="chance")
            results.mean(f"acc@{t:g}", shares[:, column] > 0, reference="oracle")
        results.unparsed(answers)
        return results.found
