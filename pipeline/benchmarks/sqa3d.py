"""SQA3D: a question asked from a described position in the scene, one answer.

Official files (both needed, recognised by content): ``v1_balanced_questions_*.json`` with {"questions": [{question_id,
scene_id, situation, alternative_situation, question}]} and ``v1_balanced_sqa_annotations_*.json`` with {"annotations":
[{question_id, scene_id, answers: [{answer}], position, rotation}]}. Source: SQA3D (ICLR 2023). EM after cleaning both sides
(metrics/answers.py), over all questions and per type; the type is the question's prefix: what, is, how, can, which, others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.benchmarks._annotations import AnnotationOptions, Entry, as_entries, in_split, read_json, unique_samples
from pipeline.benchmarks._parsing import parse_text
from pipeline.benchmarks._results import Results
from pipeline.benchmarks._text import add_exact_match
from pipeline.benchmarks.base import Benchmark, MetricResult
from pipeline.core.errors import AnnotationError
from pipeline.metrics.answers import question_type
from pipeline.scenes.types import Answer, ModelOutput, Sample, SceneRecord

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex


def read_pair(paths: Sequence[Path]) -> tuple[list[Entry], dict[str, Entry]]:
    """Return question entries in file order and annotation entries by question id."""
    questions: list[Entry] = []
    annotations: dict[str, Entry] = {}
    kinds: list[str] = []
    for path in paths:
        content = read_json(path)
        kind = next((k for k in ("questions", "annotations") if isinstance(content, dict) and k in content), None)
        if kind is None:
            raise AnnotationError(f"{path} holds neither 'questions' nor 'annotations'", allowed="the official files of SQA3D")
        kinds.append(kind)
        entries = as_entries(content[kind], path)
        if kind == "questions":
            questions += entries
            continue
        for entry in entries:
            if entry.identifier("question_id") in annotations:
                raise entry.fault(f"question_id {entry.identifier('question_id')} comes twice")
            annotations[entry.identifier("question_id")] = entry
    if set(kinds) != {"questions", "annotations"}:
        raise AnnotationError(
            "SQA3D needs a questions file and an annotations file", where=", ".join(map(str, paths)) or "no file is listed"
        )
    return questions, annotations


class SQA3D(Benchmark):
    """Situated question answering."""

    options_model = AnnotationOptions
    task = "qa"
    headline = "em"
    generation_tokens = 8
    options: AnnotationOptions

    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return one sample per question with its main situation text, id = question_id, in file order."""
        return unique_samples(
            (self._sample(q, a, record, q.text("situation")), q) for q, a, record in self._entries(index, split)
        )

    def training_samples(self, index: SceneIndex) -> list[Sample]:
        """Return one sample per situation text (main, then alternatives), id ``question_id|number of the text``."""
        return unique_samples(
            (self._sample(q, a, record, text, number), q)
            for q, a, record in self._entries(index, "train")
            for number, text in enumerate((q.text("situation"), *q.texts("alternative_situation")))
        )

    def _entries(self, index: SceneIndex, split: str) -> list[tuple[Entry, Entry, SceneRecord]]:
        questions, annotations = read_pair(index.annotation_files("sqa3d", split))
        ids = {q.identifier("question_id") for q in questions}
        extra = [a for i, a in annotations.items() if i not in ids]
        if extra:
            raise extra[0].fault(f"{len(extra)} annotations have no question, the first is this one")
        joined = []
        kept = in_split(questions, self, index, split)
        for question, record in kept:
            annotation = annotations.get(question.identifier("question_id"))
            if annotation is None:
                raise question.fault(f"question {question.identifier('question_id')} has no annotation")
            if annotation.identifier("scene_id") != record.scene_id:
                raise annotation.fault(f"its question is about scene {record.scene_id}")
            joined.append((question, annotation, record))
        return joined

    def _answers(self, annotation: Entry) -> tuple[str, ...]:
        listed = annotation.value("answers")
        if not isinstance(listed, list) or not listed or not all(isinstance(a, dict) for a in listed):
            raise annotation.fault(f"'answers' is {listed!r}", allowed="a list of at least one {answer: text}")
        return tuple(Entry(a, annotation.where).text("answer") for a in listed)

    def _sample(
        self, question: Entry, annotation: Entry, record: SceneRecord, situation: str, number: int | None = None
    ) -> Sample:
        question_id, answers = question.identifier("question_id"), self._answers(annotation)
        pose: dict[str, Any] = {key: annotation.content[key] for key in ("position", "rotation") if key in annotation.content}
        return Sample(
            sample_id=question_id if number is None else f"{question_id}|{number}",
            scene_id=record.scene_id,
            benchmark=self.name,
            task=self.task,
            text=question.text("question").strip(),
            situation=situation.strip(),
            answer=answers[0].strip(),
            references=answers,
            subsets=(question_type(question.text("question")),),
            metadata=pose,
        )

    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Strip white space around the generated text; an empty one is unparsed."""
        return parse_text(output)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute ``em`` and ``em_refined`` over all and per type.

        Levels of ``em``: ``best_constant`` (the best single answer to all) and ``type_majority`` (the best one per type).
        """
        results = Results(samples, self.bootstrap)
        types = [s.subsets[0] for s in samples]
        add_exact_match(results, [a.text for a in answers], [s.references for s in samples], clean=True, types=types)
        results.unparsed(answers)
        return results.found
