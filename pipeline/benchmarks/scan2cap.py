"""Scan2Cap: describe the object at a given place; caption scores at IoU 0.5.

Reads the files of ScanRefer (``ScanRefer_filtered_{split}.json``): the descriptions are the captions. Source: Scan2Cap
(CVPR 2021), evaluation as in 3DRS and the works it compares with:

* one caption per described object; the model is shown the proposal with the highest IoU with the ground-truth box, if it
  is at least 0.5. The association uses the ground truth, so the scores are recall-style. Otherwise the sample is *gated*:
  ``input_box`` None, the caption is empty whatever the model says, and it stays in every average (``gated`` says how many).
* candidate and references: ``sos {text} eos``, "." and "," set apart, lower case, white space collapsed. A gated caption
  is "sos eos" and still earns some credit from the two markers; that is the official definition.
* ``rougeL@0.5`` is ROUGE-L on these texts. ``rougeL_reference@0.5`` repeats a fault of the published script for comparison with
  printed numbers: it splits on single blanks without collapsing them, and empty strings count as matching words (about
  +5.6 points on human captions).
* option ``official``: ``cider_official@0.5`` and the others repeat the rules of the Scan2Cap script itself: references are
  the file's ``token`` lists, at most 30 words of each (and of the candidate), and the gate is IoU strictly above 0.5. The
  boxes are still the proposals here, not those of its own detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.benchmarks._annotations import Entry, TextAnnotationOptions, read_in_split, unique_samples
from pipeline.benchmarks._parsing import parse_text
from pipeline.benchmarks._results import Results
from pipeline.benchmarks._text import add_caption_metrics
from pipeline.benchmarks.base import Benchmark, MetricResult
from pipeline.metrics.boxes import best_proposal
from pipeline.metrics.captions import rouge_l, scan2cap_text
from pipeline.scenes.types import Answer, ModelOutput, Sample, SceneObject, SceneRecord

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex

IOU_GATE = 0.5
OFFICIAL_WORDS = 30
"""Words of a reference or candidate that the Scan2Cap script keeps (its CONF.TRAIN.MAX_DES_LEN)."""


class Scan2CapOptions(TextAnnotationOptions):
    """Options: rules that are scored besides those of the module's docstring."""

    official: bool = Field(False, description="Score the rules of the Scan2Cap script too, under names with `_official`.")


class Scan2Cap(Benchmark):
    """Dense captioning with the proposal chosen by the ground-truth box."""

    options_model = Scan2CapOptions
    task = "caption"
    headline = "cider@0.5"
    generation_tokens = 64
    options: Scan2CapOptions

    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return one sample per described object, id ``scene|object|name``, in the order of first mention."""
        groups: dict[tuple[str, int, str], list[tuple[Entry, SceneRecord, SceneObject]]] = {}
        for entry, record, item in self._described(index, split):
            groups.setdefault((record.scene_id, item.object_id, entry.text("object_name")), []).append((entry, record, item))
        return unique_samples((self._evaluation_sample(members), members[0][0]) for members in groups.values())

    def training_samples(self, index: SceneIndex) -> list[Sample]:
        """Return one sample per description with the ground-truth box, id ``scene|object|annotation``."""
        return unique_samples(
            (self._training_sample(*described), described[0]) for described in self._described(index, "train")
        )

    def _described(self, index: SceneIndex, split: str) -> list[tuple[Entry, SceneRecord, SceneObject]]:
        entries = read_in_split("scan2cap", self, index, split, lambda e: (e.whole("object_id"),))
        described = [(entry, record, item) for entry, record, (item,) in entries]
        unique_samples((self._training_sample(*d), d[0]) for d in described)
        return described

    def _training_sample(self, entry: Entry, record: SceneRecord, item: SceneObject) -> Sample:
        description = entry.text("description").strip()
        return Sample(
            sample_id=f"{record.scene_id}|{item.object_id}|{entry.identifier('ann_id')}",
            scene_id=record.scene_id,
            benchmark=self.name,
            task=self.task,
            answer=description,
            references=(description,),
            target_ids=(item.object_id,),
            input_box=tuple(item.box),
            metadata={"object_name": entry.text("object_name")},
        )

    def _evaluation_sample(self, members: Sequence[tuple[Entry, SceneRecord, SceneObject]]) -> Sample:
        entry, record, item = members[0]
        candidates = record.candidate_boxes()
        best = best_proposal(item.box, candidates, IOU_GATE)
        texts = tuple(e.text("description").strip() for e, _, _ in members)
        name = entry.text("object_name")
        return Sample(
            sample_id=f"{record.scene_id}|{item.object_id}|{name}",
            scene_id=record.scene_id,
            benchmark=self.name,
            task=self.task,
            answer=texts[0],
            references=texts,
            target_ids=(item.object_id,),
            input_box=None if best is None else tuple(candidates[best[0]].tolist()),
            metadata={"object_name": name, "iou": 0.0 if best is None else best[1]} | self._tokens(members),
        )

    def _tokens(self, members: Sequence[tuple[Entry, SceneRecord, SceneObject]]) -> dict[str, list[str]]:
        """Return the script's references when they are wanted: the first words of the file's own tokens."""
        if not self.options.official:
            return {}
        return {"tokens": [" ".join(entry.texts("token")[:OFFICIAL_WORDS]) for entry, _, _ in members]}

    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Strip white space around the generated text; gated samples have none and are not unparsed."""
        return Answer() if sample.input_box is None else parse_text(output)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute CIDEr, BLEU-4, METEOR and ROUGE-L (x100) as in the module's text, and the percentage of ``gated`` samples."""
        results = Results(samples, self.bootstrap)
        gated = [s.input_box is None for s in samples]
        texts = ["" if shut else a.text for shut, a in zip(gated, answers, strict=True)]
        captions = [scan2cap_text(t) for t in texts]
        references = [tuple(scan2cap_text(r) for r in s.references) for s in samples]
        add_caption_metrics(results, captions, references, meteor=self.options.meteor, suffix="@0.5", bleu_orders=(4,))
        raw_references = [tuple(scan2cap_text(r, collapse=False) for r in s.references) for s in samples]
        inflated = [
            rouge_l(scan2cap_text(t, collapse=False).split(" "), [r.split(" ") for r in refs])
            for t, refs in zip(texts, raw_references, strict=True)
        ]
        results.mean("rougeL_reference@0.5", inflated)
        results.mean("gated", gated)
        if self.options.official:
            self._score_official(results, samples, answers)
        results.unparsed(answers)
        return results.found

    def _score_official(self, results: Results, samples: Sequence[Sample], answers: Sequence[Answer]) -> None:
        gated = [s.input_box is None or s.metadata["iou"] <= IOU_GATE for s in samples]
        texts = ["" if shut else scan2cap_text(a.text) for shut, a in zip(gated, answers, strict=True)]
        words = [text.split()[1:-1][:OFFICIAL_WORDS] for text in texts]
        captions = [" ".join(("sos", *kept, "eos")) for kept in words]
        references = [tuple(f"sos {text} eos" for text in s.metadata["tokens"]) for s in samples]
        add_caption_metrics(results, captions, references, meteor=self.options.meteor, suffix="_official@0.5", bleu_orders=(4,))
        results.mean("gated_official", gated)
