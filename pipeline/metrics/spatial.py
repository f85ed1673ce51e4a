"""Scores of VSI-Bench: exact option letters, mean relative accuracy of numbers, and the average over its eight tasks.

Source: Yang et al., "Thinking in Space", CVPR 2025, and its official script. An answer is its first word (up to the first
blank) without final full stops. A number scores the share of the ten tolerances 1 - theta, theta = 0.5, 0.55, ... 0.95, that
its relative error |said - true| / true does not exceed. The three grades of relative direction count as one task, the
mean of the three; the average is the mean over tasks, whatever their numbers of questions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUMERIC_TYPES = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
DIRECTION_TYPES = ("object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard")
CHOICE_TYPES = ("object_rel_distance", *DIRECTION_TYPES, "route_planning", "obj_appearance_order")
QUESTION_TYPES = (*NUMERIC_TYPES, *CHOICE_TYPES)
DIRECTION = "object_rel_direction"
"""The task that the three grades of direction are merged into."""

# Kept in floating point as officially (1 - 0.9 is a little less than 0.1), so that borderline answers agree with the script.
_TOLERANCES = 1 - np.linspace(0.5, 0.95, 10)


def first_word(text: str) -> str:
    """Return what of an answer is scored: everything before the first blank, without final full stops."""
    return text.strip().split(" ")[0].rstrip(".").strip()


def number(text: str) -> float | None:
    """Return the number that an answer starts with; None when there is none or it is not finite."""
    try:
        value = float(first_word(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def mean_relative_accuracy(said: float, true: float) -> float:
    """Return the share of the ten tolerances that the relative error of ``said`` stays within; ``true`` must be above 0."""
    return float((abs(said - true) / true <= _TOLERANCES).mean())


def answer_score(question_type: str, said: str, true: str) -> float:
    """Score of one answer, 0 to 1: mean relative accuracy of numbers, exact letter (any case) of choices."""
    if question_type in NUMERIC_TYPES:
        value = number(said)
        return 0.0 if value is None else mean_relative_accuracy(value, float(true))
    return float(first_word(said).lower() == true.lower())


def type_sums(question_types: Sequence[str], scores: ArrayLike) -> NDArray[np.float64]:
    """Return rows (n,20) to sum: per question type, in the order of ``QUESTION_TYPES``, a question's score and 1."""
    rows = np.zeros((len(question_types), 2 * len(QUESTION_TYPES)))
    columns = np.array([2 * QUESTION_TYPES.index(kind) for kind in question_types], dtype=np.int64)
    numbers = np.arange(len(question_types))
    rows[numbers, columns] = np.asarray(scores, dtype=np.float64)
    rows[numbers, columns + 1] = 1.0
    return rows


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over columns that are not NaN (R,); NaN where all are."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def task_average(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over tasks x100 (R,) from sums of ``type_sums`` (R,20). Types and tasks without a question are left out."""
    scores, counts = sums[:, 0::2], sums[:, 1::2]
    means = np.divide(scores, counts, out=np.full(scores.shape, np.nan), where=counts > 0)
    merged = [QUESTION_TYPES.index(kind) for kind in DIRECTION_TYPES]
    single = [i for i in range(len(QUESTION_TYPES)) if i not in merged]
    tasks = np.column_stack([means[:, single], _mean_of_known(means[:, merged])])
    return 100.0 * _mean_of_known(tasks)


def task_of(question_type: str) -> str:
    """Return the task that a question type belongs to."""
    return DIRECTION if question_type in DIRECTION_TYPES else question_type


def most_frequent(question_types: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Return the most frequent right answer of each question's type ("chance, frequency"); ties: the first in the alphabet."""
    counts: dict[str, Counter[str]] = {}
    for kind, answer in zip(question_types, answers, strict=True):
        counts.setdefault(kind, Counter())[answer] += 1
    best = {kind: min(found, key=lambda a: (-found[a], a)) for kind, found in counts.items()}
    return [best[kind] for kind in question_types]
