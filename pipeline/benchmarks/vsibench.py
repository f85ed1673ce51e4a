"""VSI-Bench: questions about space that are answered with a number or the letter of an option.

Official file: rows {id, dataset, scene_name, question_type, question, options, ground_truth} as a JSON list or one object a
line (``test.jsonl``). Source: Yang et al., "Thinking in Space" (CVPR 2025). Scores: metrics/spatial.py. ``score`` over all
questions is the official average over the eight tasks; over a question type it is that type's own score. The official
test set mixes ScanNet, ScanNet++ and ARKitScenes: with scenes of one of them set ``skip_missing_scenes``.
Where the file says which questions are ``pruned``, the rest is the subset ``debiased``: 2,363 of 5,131, which a model that sees
nothing cannot guess (VSI-Bench-Debiased; its authors ask to report it).

The prompt is the official one (prompts.py), after the images and the instruction that all benchmarks share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.benchmarks._annotations import AnnotationOptions, Entry, in_split, read_rows, unique_samples
from pipeline.benchmarks._results import Results
from pipeline.benchmarks.base import Benchmark, MetricResult
from pipeline.metrics import spatial
from pipeline.scenes.types import Answer, ModelOutput, Sample, SceneRecord

if TYPE_CHECKING:
    from pipeline.scenes.index import SceneIndex


DEBIASED = "debiased"
"""Questions that are not pruned."""


class VSIBench(Benchmark):
    """Visual-spatial intelligence: counts, sizes, distances, directions, routes, order of appearance."""

    options_model = AnnotationOptions
    task = "qa"
    headline = "score"
    generation_tokens = 16
    options: AnnotationOptions

    def samples(self, index: SceneIndex, split: str) -> list[Sample]:
        """Return one sample per question, id = the file's id, in file order."""
        entries = [entry for path in index.annotation_files("vsibench", split) for entry in read_rows(path)]
        kept = in_split(entries, self, index, split, key="scene_name")
        return unique_samples((self._sample(entry, record), entry) for entry, record in kept)

    def _sample(self, entry: Entry, record: SceneRecord) -> Sample:
        kind = entry.text("question_type")
        if kind not in spatial.QUESTION_TYPES:
            raise entry.fault(f"question_type is {kind!r}", allowed=", ".join(spatial.QUESTION_TYPES))
        numeric = kind in spatial.NUMERIC_TYPES
        choices = () if numeric else _options(entry)
        truth = _true_number(entry) if numeric else _true_letter(entry, choices)
        merged = (spatial.DIRECTION,) if kind in spatial.DIRECTION_TYPES else ()
        return Sample(
            sample_id=entry.identifier("id"),
            scene_id=record.scene_id,
            benchmark=self.name,
            task=self.task,
            text=entry.text("question"),
            answer=truth,
            references=(truth,),
            choices=choices,
            numeric=numeric,
            subsets=(kind, *merged, *_debiased(entry)),
            metadata={"dataset": entry.text("dataset")},
        )

    def parse(self, sample: Sample, output: ModelOutput) -> Answer:
        """Return the generated text; unparsed unless its first word is a number, or the letter of one of the options."""
        text = output.raw_text.strip() if isinstance(output.raw_text, str) else ""
        if sample.numeric:
            return Answer(text=text, parsed=spatial.number(text) is not None)
        letters = {choice.strip()[0].lower() for choice in sample.choices}
        return Answer(text=text, parsed=spatial.first_word(text).lower() in letters)

    def score(self, samples: Sequence[Sample], answers: Sequence[Answer], index: SceneIndex) -> list[MetricResult]:
        """Compute, in percent, ``score`` (official average), ``accuracy`` (choices), ``mra`` (numbers), ``score_by_question``.

        Levels: ``type_majority``, the most frequent right answer of each type; ``chance`` of ``accuracy``, a random option.
        ``tasks``: over how many of the eight tasks ``score`` is the average.
        """
        results = Results(samples, self.bootstrap)
        kinds = [s.subsets[0] for s in samples]
        truths = [s.references[0] for s in samples]
        values = np.array([spatial.answer_score(k, a.text, t) for k, a, t in zip(kinds, answers, truths, strict=True)])
        frequent = spatial.most_frequent(kinds, truths)
        level = np.array([spatial.answer_score(k, f, t) for k, f, t in zip(kinds, frequent, truths, strict=True)])
        numeric = np.array([s.numeric for s in samples], dtype=np.bool_)
        results.corpus("score", spatial.type_sums(kinds, values), spatial.task_average, per_sample=100.0 * values)
        results.corpus("score", spatial.type_sums(kinds, level), spatial.task_average, reference="type_majority")
        results.mean("score_by_question", values, subsets=False)
        results.mean("mra", values, keep=numeric)
        results.mean("mra", level, keep=numeric, reference="type_majority")
        results.mean("accuracy", values, keep=~numeric)
        results.mean("accuracy", level, keep=~numeric, reference="type_majority")
        chance = [1.0 / len(s.choices) if s.choices else 0.0 for s in samples]
        results.mean("accuracy", chance, keep=~numeric, reference="chance")
        tasks = len({spatial.task_of(k) for k in kinds})
        results.mean("tasks", [tasks] * len(samples), scale=1.0, subsets=False)
        results.unparsed(answers)
        return results.found


def _debiased(entry: Entry) -> tuple[str, ...]:
    """Return the subset ``debiased`` for a question that the authors' pruning kept; older files lack the key ``pruned``."""
    pruned = entry.content.get("pruned", True)
    if not isinstance(pruned, bool):
        raise entry.fault(f"'pruned' is {pruned!r}", allowed="true or false")
    return () if pruned else (DEBIASED,)


def _options(entry: Entry) -> tuple[str, ...]:
    """Return the options, at least two, each behind its own letter: ``A. left``."""
    options = entry.texts("options")
    letters = [option.strip()[0] for option in options]
    if len(options) < 2 or letters != [chr(ord("A") + i) for i in range(len(options))]:
        raise entry.fault(f"'options' is {list(options)}", allowed="two or more, starting with A, B, C ... in order")
    return options


def _true_letter(entry: Entry, options: Sequence[str]) -> str:
    letter = entry.text("ground_truth").strip()
    if letter.upper() not in {option.strip()[0] for option in options}:
        raise entry.fault(f"'ground_truth' is {letter!r}", allowed="the letter of one of the options")
    return letter.upper()


def _true_number(entry: Entry) -> str:
    """Return the right number as written; it must be above 0, because the relative error is divided by it."""
    value = entry.value("ground_truth")
    text = "" if isinstance(value, bool) else str(value).strip()
    found = spatial.number(text)
    if found is None or not math.isfinite(found) or found <= 0 or text != spatial.first_word(text):
        raise entry.fault(f"'ground_truth' is {value!r}", allowed="a number above 0")
    return text
