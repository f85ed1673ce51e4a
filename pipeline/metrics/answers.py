"""Answer matching of SQA3D and ScanQA: cleaning, exact match, refined match, question types, constant-answer levels.

``clean_answer`` follows the cleaning that LEO introduced and SQA3D evaluations use since: lower case, outer and double
blanks removed, characters other than letters, digits, comma, apostrophe, hyphen, colon and blanks dropped, common misspellings
of the annotators fixed, whole numbers 0-20 and 23 written out, "none" as zero, a digit at the end of a word and articles
before a word dropped. Both sides are always cleaned, so its oddities hit both.

The published script drops every letter that is not a-z: answers in other scripts all become the empty text and match each
other. Here letters, digits and combining marks of any script stay; ASCII text is cleaned exactly as published. What has no
letter at all (emoji) is compared unchanged (``comparable``).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache

_SPELLING = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "brigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
}
_NUMBERS = dict(
    enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
            *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
        )
    )
) | {23: "twenty-three"}
_WORDS = {str(number): word for number, word in _NUMBERS.items()} | {"none": "zero"}
_SPELLING_PATTERN = re.compile(r"\b(" + "|".join(_SPELLING) + r")\b")
_NUMBER_PATTERN = re.compile(r"\b(" + "|".join(sorted(_WORDS, key=len, reverse=True)) + r")\b")
_DROPPED = re.compile(r"[^a-zA-Z0-9,'\s\-:]+")
_DIGIT_AT_END = re.compile(r"\b([a-zA-Z]+)[0-9]\b")
_O_CLOCK = re.compile(r"\bo' +clock\b")
_ARTICLES = tuple(re.compile(rf"\b{article}\b ([a-zA-Z]+)") for article in ("a", "an", "the"))

QUESTION_TYPES = ("what", "is", "how", "can", "which")
"""Official prefixes of SQA3D questions; any other question is of type "others"."""


@lru_cache(maxsize=1 << 16)
def clean_answer(text: str, *, ascii_only: bool = False) -> str:
    """Return the cleaned form of an answer (see the module's text). ``ascii_only``: drop other letters, as published."""
    cleaned = re.sub(" {2,}", " ", text.lower().strip(" "))
    cleaned = _DROPPED.sub("", cleaned) if ascii_only or cleaned.isascii() else _without_marks(cleaned)
    cleaned = _SPELLING_PATTERN.sub(lambda m: _SPELLING[m.group(1)], cleaned)
    cleaned = _O_CLOCK.sub("o'clock", cleaned)
    cleaned = _NUMBER_PATTERN.sub(lambda m: _WORDS[m.group(1)], cleaned)
    cleaned = _DIGIT_AT_END.sub(r"\1", cleaned)
    for article in _ARTICLES:
        cleaned = article.sub(r"\1", cleaned)
    return re.sub(r"\bbackwards\b", "backward", cleaned)


def _without_marks(text: str) -> str:
    """Keep only letters, digits, blanks and the four officially kept marks; combining marks stay on their letters."""
    kept: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(character)[0]
        follows = bool(kept) and unicodedata.category(kept[-1])[0] in "LM"
        known = (kind in "LN" and not character.isascii()) or (kind == "M" and follows)
        if known or not _DROPPED.match(character):
            kept.append(character)
    return " ".join("".join(kept).split())


def comparable(text: str) -> str:
    """Return the cleaned answer, or the text itself when cleaning leaves no letter or digit, so that it equals only itself."""
    cleaned = clean_answer(text)
    return cleaned if any(c.isalnum() for c in cleaned) else " ".join(text.split())


def leo_match(prediction: str, references: Sequence[str]) -> tuple[bool, bool]:
    """Return exact and refined match as LEO's script computes them (evaluator/scanqa_eval.py), cleaning included.

    The first reference that is equal or contains the other without blanks decides: a later, equal one is not looked at.
    An empty prediction is contained in everything.
    """
    cleaned = clean_answer(prediction, ascii_only=True)
    said = "".join(cleaned.split())
    for reference in (clean_answer(r, ascii_only=True) for r in references):
        truth = "".join(reference.split())
        if cleaned == reference:
            return True, True
        if truth in said or said in truth:
            return False, True
    return False, False


def cleaned_match(prediction: str, references: Sequence[str]) -> tuple[bool, bool]:
    """Return two published forms of ScanQA's exact match: the cleaned prediction among the cleaned references (VLM-3R), and
    among the references unchanged (Chat-Scene, GPT4Scene); cleaning as published, which leaves nothing of most other
    scripts.
    """
    cleaned = clean_answer(prediction, ascii_only=True)
    return cleaned in {clean_answer(r, ascii_only=True) for r in references}, cleaned in references


def refined_match(prediction: str, references: Sequence[str]) -> bool:
    """Return exact match or containment without blanks, either way, with any reference; both sides already cleaned.

    An empty prediction matches nothing: the published script lets it match everything ("" is in every string).
    """
    said = "".join(prediction.split())
    if not said:
        return False
    truths = ["".join(r.split()) for r in references]
    return any(truth and (said in truth or truth in said) for truth in truths)


def question_type(question: str) -> str:
    """Return SQA3D's type of a question: the first of ``QUESTION_TYPES`` that it starts with, else "others"."""
    start = question.strip().lower()
    return next((kind for kind in QUESTION_TYPES if start.startswith(kind)), "others")


def best_constant(references: Sequence[Sequence[str]], groups: Sequence[str] | None = None) -> list[bool]:
    """Return the samples that the best constant answer hits, one answer for all or per group; ties: the alphabet's first."""
    keys = groups if groups is not None else [""] * len(references)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, refs in zip(keys, references, strict=True):
        counts[key].update(set(refs))
    best = {key: min(c, key=lambda answer: (-c[answer], answer)) for key, c in counts.items()}
    return [best[key] in refs for key, refs in zip(keys, references, strict=True)]
