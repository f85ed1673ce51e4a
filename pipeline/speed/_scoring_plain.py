"""Scoring the plain way, one sample after the other: loops over pairs of boxes, pycocoevalcap's own classes, a JVM a metric.

Written here to be measured against; each function gives the figures of the benchmark's metrics over the whole set, no more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from scipy.optimize import linear_sum_assignment

from pipeline.metrics.answers import best_constant, clean_answer, refined_match
from pipeline.metrics.boxes import THRESHOLDS
from pipeline.metrics.captions import scan2cap_text
from pipeline.metrics.java import java_home
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Answer, Sample

Box = Sequence[float]
Figures = dict[tuple[str, str], float]
"""Metric and level of reference ("" for the answers themselves) -> value over the whole set, in percent or x100."""


def box_iou(a: Box, b: Box) -> float:
    """Return the IoU of two boxes [centre, size]."""
    common = 1.0
    for axis in range(3):
        low = max(a[axis] - a[axis + 3] / 2, b[axis] - b[axis + 3] / 2)
        high = min(a[axis] + a[axis + 3] / 2, b[axis] + b[axis + 3] / 2)
        common *= max(high - low, 0.0)
    volume_a, volume_b = a[3] * a[4] * a[5], b[3] * b[4] * b[5]
    return common / (volume_a + volume_b - common + 1e-8)


def single(samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> Figures:
    """Score ScanRefer: accuracies and their levels."""
    found: dict[tuple[str, str], list[float]] = {(f"acc@{t:g}", k): [] for t in THRESHOLDS for k in ("", "chance", "oracle")}
    for sample, answer in zip(samples, answers, strict=True):
        record = index.records[sample.scene_id]
        target = record.object(sample.target_ids[0]).box
        reached = box_iou(answer.boxes[0], target) if answer.boxes else 0.0
        candidates = [box_iou(box, target) for box in record.candidate_boxes().tolist()]
        for t in THRESHOLDS:
            hits = sum(value >= t for value in candidates)
            found[f"acc@{t:g}", ""].append(reached >= t)
            found[f"acc@{t:g}", "chance"].append(hits / len(candidates))
            found[f"acc@{t:g}", "oracle"].append(hits > 0)
    return {name: 100 * sum(values) / len(values) for name, values in found.items()}


def multiple(samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> Figures:
    """Score Multi3DRefer: F1 at both thresholds and the level of a random choice."""
    found: dict[tuple[str, str], list[float]] = {(f"f1@{t:g}", k): [] for t in THRESHOLDS for k in ("", "chance")}
    for sample, answer in zip(samples, answers, strict=True):
        record = index.records[sample.scene_id]
        truth = [record.object(i).box for i in sample.target_ids]
        candidates = record.candidate_boxes().tolist()
        best = [max((box_iou(box, t) for t in truth), default=0.0) for box in candidates]
        for t in THRESHOLDS:
            found[f"f1@{t:g}", ""].append(_f1(answer.boxes, truth, t))
            hits = sum(value >= t for value in best)
            level = 2 * hits / (1 + len(truth)) if truth else 1.0
            found[f"f1@{t:g}", "chance"].append(level / (len(candidates) + 1))
    return {name: 100 * sum(values) / len(values) for name, values in found.items()}


def _f1(said: Sequence[Box], truth: Sequence[Box], threshold: float) -> float:
    if not said or not truth:
        return float(len(said) == len(truth))
    size = max(len(said), len(truth))
    values = np.zeros((size, size))
    for i, a in enumerate(said):
        for j, b in enumerate(truth):
            values[i, j] = box_iou(a, b)
    rows, columns = linear_sum_assignment(-values)
    right = sum(values[i, j] >= threshold for i, j in zip(rows, columns, strict=True))
    return 2 * right / (len(said) + len(truth))


def answers_score(samples: Sequence[Sample], answers: Sequence[Answer], *, meteor: bool) -> Figures:
    """Score ScanQA: exact and refined match, best constant answer, and the text metrics."""
    clean = clean_answer.__wrapped__
    exact, refined = [], []
    for sample, answer in zip(samples, answers, strict=True):
        exact.append(answer.text in sample.references)
        refined.append(refined_match(clean(answer.text), [clean(r) for r in sample.references]))
    constant = best_constant([s.references for s in samples])
    hits = {("em", ""): exact, ("em_refined", ""): refined, ("em", "best_constant"): constant}
    found = {key: 100 * sum(values) / len(values) for key, values in hits.items()}
    said = [a.text.rstrip(".") for a in answers]
    return found | text_metrics(said, [list(s.references) for s in samples], meteor=meteor)


def captions_score(samples: Sequence[Sample], answers: Sequence[Answer], *, meteor: bool) -> Figures:
    """Score Scan2Cap: the text metrics of gated captions."""
    texts = ["" if s.input_box is None else a.text for s, a in zip(samples, answers, strict=True)]
    said = [scan2cap_text(text) for text in texts]
    references = [[scan2cap_text(r) for r in s.references] for s in samples]
    return text_metrics(said, references, meteor=meteor, orders=(4,), suffix="@0.5")


def text_metrics(
    said: Sequence[str],
    references: Sequence[list[str]],
    *,
    meteor: bool,
    orders: Sequence[int] = (1, 2, 3, 4),
    suffix: str = "",
) -> Figures:
    """Compute CIDEr, BLEU, ROUGE-L and METEOR x100 with pycocoevalcap's classes."""
    truth = dict(enumerate(references))
    told = {i: [text] for i, text in enumerate(said)}
    bleu, _ = Bleu(4).compute_score(truth, told, verbose=0)
    found = {f"bleu{n}": bleu[n - 1] for n in orders}
    found["cider"] = Cider().compute_score(truth, told)[0]
    found["rougeL"] = Rouge().compute_score(truth, told)[0]
    if meteor:
        with _java_on_path():
            scorer = Meteor()
            found["meteor"] = scorer.compute_score(truth, told)[0]
            scorer.meteor_p.kill()
            scorer.meteor_p.wait()
    return {(f"{name}{suffix}", ""): 100 * float(value) for name, value in found.items()}


@contextmanager
def _java_on_path() -> Iterator[None]:
    """Put the Java runtime on the PATH: pycocoevalcap starts whatever ``java`` it finds there."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{java_home()}/bin{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
