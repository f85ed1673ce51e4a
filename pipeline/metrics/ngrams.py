"""BLEU and CIDEr from one table of n-grams: counted for all texts at once in numpy, equal to pycocoevalcap's numbers.

A text's words get whole numbers; an n-gram's number follows from the number of its first n-1 words and its last word, so the
n-grams of a corpus are counted by sorting arrays. pycocoevalcap fills Python dictionaries, text by text, for each metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ORDERS = 4
_SIGMA = 6.0
"""Width of CIDEr's penalty of a difference in length (of the bigrams), as pycocoevalcap's."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Counts(NamedTuple):
    """Counts of each text's n-grams: rows sorted by text, then n-gram; ``grams`` different n-grams in all."""

    text: Ints
    gram: Ints
    times: Ints
    grams: int


def _matches(keys: Ints, wanted: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Find ``wanted`` in the sorted ``keys``: their places, and whether they are there."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted


class NGrams:
    """N-grams of candidates (n) and of all their references, flattened; words are what blanks separate."""

    def __init__(self, candidates: Sequence[str], references: Sequence[Sequence[str]]):
        self.items = len(candidates)
        flat = [*candidates, *(r for refs in references for r in refs)]
        number = np.array([len(refs) for refs in references], dtype=np.int64)
        self.item_of_reference = np.repeat(np.arange(self.items), number)
        words: dict[str, int] = {}
        split = [[words.setdefault(w, len(words)) for w in text.split()] for text in flat]
        self.lengths = np.array([len(s) for s in split], dtype=np.int64)
        tokens = np.array([w for s in split for w in s], dtype=np.int64)
        self.counts = _counted(tokens, self.lengths, max(len(words), 1))

    def _sides(self, order: int) -> tuple[Counts, Counts]:
        """Return counts of the candidates and of the references (numbered from 0) at one order, 0 for single words."""
        all_texts = self.counts[order]
        border = int(np.searchsorted(all_texts.text, self.items))
        first = Counts(all_texts.text[:border], all_texts.gram[:border], all_texts.times[:border], all_texts.grams)
        rest = all_texts.text[border:] - self.items
        return first, Counts(rest, all_texts.gram[border:], all_texts.times[border:], all_texts.grams)

    def bleu_statistics(self) -> Floats:
        """Return BLEU's sums (n,10): candidate length, closest reference length, candidate n-grams (4), matches (4)."""
        rows = np.zeros((self.items, 2 + 2 * ORDERS))
        rows[:, 0] = self.lengths[: self.items]
        rows[:, 1] = self._closest_lengths()
        for order in range(ORDERS):
            said, truth = self._sides(order)
            rows[:, 2 + order] = np.maximum(0, rows[:, 0] - order)
            keys = self.item_of_reference[truth.text] * truth.grams + truth.gram
            sorting = np.argsort(keys, kind="stable")
            known, starts = np.unique(keys[sorting], return_index=True)
            most = np.maximum.reduceat(truth.times[sorting], starts) if len(known) else truth.times
            places, there = _matches(known, said.text * said.grams + said.gram)
            right = np.minimum(said.times[there], most[places[there]])
            rows[:, 2 + ORDERS + order] = np.bincount(said.text[there], weights=right, minlength=self.items)
        return rows

    def _closest_lengths(self) -> Ints:
        """Return the reference length nearest to each candidate's own, the shorter of two equally near ones."""
        lengths = self.lengths[self.items :]
        off = np.abs(lengths - self.lengths[self.item_of_reference])
        best = np.lexsort((lengths, off, self.item_of_reference))
        items, first = np.unique(self.item_of_reference[best], return_index=True)
        found = np.zeros(self.items, dtype=np.int64)
        found[items] = lengths[best][first]
        return found

    def cider(self) -> Floats:
        """Return the CIDEr of every candidate (n,), 0 to 10. Document frequencies are over the items' references."""
        scores = np.zeros(len(self.item_of_reference))
        bigrams = np.maximum(0, self.lengths - 1)
        apart = (bigrams[: self.items][self.item_of_reference] - bigrams[self.items :]).astype(np.float64)
        for order in range(ORDERS):
            scores += self._similarity(order)
        scores *= np.exp(-(apart**2) / (2 * _SIGMA**2)) / ORDERS
        total = np.bincount(self.item_of_reference, weights=scores, minlength=self.items)
        number = np.bincount(self.item_of_reference, minlength=self.items)
        return np.asarray(10.0 * total / np.maximum(number, 1), dtype=np.float64)

    def _similarity(self, order: int) -> Floats:
        """Return the clipped cosine of tf-idf vectors of every reference with its candidate (number of references,)."""
        said, truth = self._sides(order)
        item = self.item_of_reference[truth.text]
        seen = np.unique(item * truth.grams + truth.gram) % max(truth.grams, 1)
        rarity = np.log(float(max(self.items, 1))) - np.log(np.maximum(1.0, np.bincount(seen, minlength=truth.grams)))
        values, references = said.times * rarity[said.gram], truth.times * rarity[truth.gram]
        places, there = _matches(said.text * said.grams + said.gram, item * truth.grams + truth.gram)
        common = np.minimum(values[places[there]], references[there]) * references[there]
        count = len(self.item_of_reference)
        dot = np.bincount(truth.text[there], weights=common, minlength=count)
        norm = np.sqrt(np.bincount(said.text, weights=values**2, minlength=self.items))[self.item_of_reference]
        norm = norm * np.sqrt(np.bincount(truth.text, weights=references**2, minlength=count))
        return np.divide(dot, norm, out=np.zeros(count), where=norm > 0)


def _counted(tokens: Ints, lengths: Ints, vocabulary: int) -> list[Counts]:
    """Count n-grams per order of texts given as one list of word numbers with their lengths."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    codes, found = tokens, []
    for order in range(ORDERS):
        if order:
            # Grams that begin at a place and end in the same text.
            inside = owner[: len(owner) - order] == owner[order:] if len(owner) > order else np.zeros(0, dtype=np.bool_)
            starts = np.flatnonzero(inside)
            joined = codes[starts] * vocabulary + tokens[starts + order]
        else:
            starts, joined = np.arange(len(tokens)), tokens
        known, numbers = np.unique(joined, return_inverse=True)
        keys, times = np.unique(owner[starts] * max(len(known), 1) + numbers, return_counts=True)
        found.append(Counts(keys // max(len(known), 1), keys % max(len(known), 1), times.astype(np.int64), len(known)))
        codes = np.zeros(len(tokens), dtype=np.int64)
        codes[starts] = numbers
    return found
