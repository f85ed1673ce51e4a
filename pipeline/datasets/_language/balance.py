"""Choice among candidates so that no answer and no kind of question becomes frequent. Deterministic for a seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Balancer:
    """Running counts over a split: the rarest answer of a family is asked next."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.answers: Counter[tuple[str, Hashable]] = Counter()
        self.families: Counter[str] = Counter()

    def pick(self, family: str, candidates: Sequence[tuple[Hashable, T]]) -> T:
        """The candidate (key, value) whose key was chosen least often in this family; ties at random."""
        order = self.rng.permutation(len(candidates))
        best = min(order, key=lambda i: self.answers[family, candidates[int(i)][0]])
        key, value = candidates[int(best)]
        self.answers[family, key] += 1
        self.families[family] += 1
        return value

    def most_wanted(self, shares: Mapping[str, float]) -> list[str]:
        """Families in the order of how far they are behind their share of all choices so far (ties at random)."""
        total = sum(self.families[name] for name in shares) + 1
        order = [list(shares)[int(i)] for i in self.rng.permutation(len(shares))]
        return sorted(order, key=lambda name: self.families[name] - shares[name] * total)

    def one(self, options: Sequence[T]) -> T:
        """Any of the options."""
        return options[int(self.rng.integers(len(options)))]
