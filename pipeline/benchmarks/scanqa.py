"""ScanQA: questions about a scene with one or more human answers.

Official file ``ScanQA_v1.0_{split}.json``: a list of {question_id, scene_id, question, answers, object_ids, object_names}.
The files ``test_w_obj`` and ``test_wo_obj`` have neither answers nor objects: they are asked, there is nothing to score, and
``python -m pipeline submission`` writes the file for their server.
Source: ScanQA (CVPR 2022); metrics as 3DRS and most later work compute them:

* ``em``: the prediction is literally one of the answers (case and a final full stop count).
* ``em_cleaned`` and ``em_cleaned_raw``: the same after the published cleaning of both sides, or of the prediction alone.
* ``em_refined``: after cleaning both, one contains the other (metrics/answers.py); an empty prediction never does.
  ``em_leo`` and ``em_refined_leo`` are the two figures of LEO's script, whose first matching answer decides.
* BLEU-1..4, METEOR, ROUGE-L, CIDEr (x100) of the prediction without final full stops against all answers, split on blanks,
  no PTB tokenizer (it changes human answers' scores by at most 0.03 points). With option ``ptb`` the same metrics also of
  texts from the PTB tokenizer, as in the ScanQA script, under names with ``_ptb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.benchmarks._annotations import Entry, TextAnnotationOptions, read_in_split, unique_samples
from pipeline.benchmarks._parsing import parse_text
from pipeline.benchmarks._results import Results
from pipeline.benchmarks._text import add_caption_metrics, add_exact_match
from pipeline.benchmarks.base import Benchmark, MetricResult
from pipeline.metrics.ptb import ptb_texts
from pipeline.scenes.types import Answer, ModelOutput, Sample, SceneRecord

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex


class ScanQAOptions(TextAnnotationOptions):
    """Options: the tokenizers of the text metrics."""

    ptb: bool = Field(
        False, description="Score texts of the PTB tokenizer too, under names with `_ptb` (starts Java once more for it)."
    )


class ScanQA(Benchmark):
    """Free-form answers, several of them right."""

    options_model = ScanQAOptions
    task = "qa"
    headline = "em"
    generation_tokens = 16
    options: ScanQAOptions

    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return one sample per question, id = question_id, all answers as references, in file order."""
        return unique_samples((self._sample(entry, record), entry) for entry, record in self._entries(index, split))

    def training_samples(self, index: SceneIndex) -> list[Sample]:
        """Return one sample per (question, answer), id ``question_id|number of the answer``."""
        return unique_samples(
            (self._sample(entry, record, number), entry)
            for entry, record in self._entries(index, "train")
            for number in range(len(entry.texts("answers")))
        )

    def _entries(self, index: SceneIndex, split: str) -> list[tuple[Entry, SceneRecord]]:
        entries = read_in_split("scanqa", self, index, split, _named_objects)
        hidden = split != "train" and all(_is_hidden(entry) for entry, _, _ in entries)
        for entry, _, _ in entries:
            if not hidden and not entry.texts("answers"):
                raise entry.fault(
                    "'answers' is empty", allowed="at least one answer (hidden test files lack the key everywhere)"
                )
        return [(entry, record) for entry, record, _ in entries]

    def _sample(self, entry: Entry, record: SceneRecord, number: int | None = None) -> Sample:
        question_id = entry.identifier("question_id")
        answers = entry.texts("answers") if "answers" in entry.content else ()
        return Sample(
            sample_id=question_id if number is None else f"{question_id}|{number}",
            scene_id=record.scene_id,
            benchmark=self.name,
            task=self.task,
            text=entry.text("question").strip(),
            answer=answers[number or 0].strip() if answers else "",
            references=answers,
            target_ids=_named_objects(entry),
        )

    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Strip white space around the generated text; an empty one is unparsed."""
        return parse_text(output)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute all metrics of the module's text; levels of ``em``: ``best_constant``, the best single answer to all
        questions, and ``type_majority``, the best one per first word of the question.
        """
        results = Results(samples, self.bootstrap)
        if not any(sample.references for sample in samples):  # hidden answers: any number would look like a score
            results.unparsed(answers)
            return results.found
        texts = [a.text for a in answers]
        references = [s.references for s in samples]
        types = [s.text.split()[0].lower() for s in samples]
        add_exact_match(results, texts, references, clean=False, types=types)
        add_caption_metrics(results, [t.rstrip(".") for t in texts], references, meteor=self.options.meteor)
        if self.options.ptb:
            said, truth = ptb_texts(texts, references)
            add_caption_metrics(results, said, truth, meteor=self.options.meteor, suffix="_ptb")
        results.unparsed(answers)
        return results.found


def _is_hidden(entry: Entry) -> bool:
    """Return whether an entry is as in the hidden test files: a question alone."""
    return "answers" not in entry.content and "object_ids" not in entry.content


def _named_objects(entry: Entry) -> tuple[int, ...]:
    """Return the objects that a question is about."""
    return () if _is_hidden(entry) else entry.wholes("object_ids")
