"""Caption metrics, with the definitions of pycocoevalcap: corpus BLEU, CIDEr, ROUGE-L, METEOR 1.5.

BLEU and CIDEr are counted in metrics/ngrams.py.

BLEU   clipped n-grams of the corpus, closest reference length, pycocoevalcap's smoothing; recombined from sums of each
       caption's statistics, so that bootstrap replicates are exact.
CIDEr  mean over captions (x10 in the library, x100 on top in the tables: 0.86 is shown as 86). Document frequencies come
       from the references of the whole set, in bootstrap replicates too.
ROUGE  ROUGE-L with beta 1.2, best precision and best recall taken over the references separately. The common subsequence is
       found with the bit-parallel method (Hyyrö 2004); equal to the library's, some twenty times faster.
METEOR see metrics/java.py.

All functions take one candidate and several references per item, as one-line strings without ``|||`` (``one_line``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.java import meteor_runtime
from pipeline.metrics.ngrams import ORDERS, NGrams

__all__ = [
    "NGrams",
    "bleu_combiner",
    "meteor_runtime",
    "one_line",
    "rouge_l",
    "scan2cap_text",
]

_BETA = 1.2
_BARS = re.compile(r"\|{3,}")


def one_line(text: str) -> str:
    """Collapse white space and remove ``|||`` (METEOR's separator): safe for every scorer's protocol."""
    return " ".join(_BARS.sub(" ", text).split())


def scan2cap_text(text: str, *, collapse: bool = True) -> str:
    """Return Scan2Cap's form of a caption: ``sos`` and ``eos`` around it, "." and "," set apart, lower case.

    ``collapse=False`` keeps the double blanks that this makes, as the published script does.
    """
    marked = "sos " + text.replace(".", " . ").replace(",", " , ").lower() + " eos"
    return one_line(marked) if collapse else marked


def bleu_combiner(order: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function from summed statistics (R,10) to BLEU-``order`` x100 (R,), with pycocoevalcap's smoothing constants."""
    small, tiny = 1e-9, 1e-15

    def combine(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        said, right = sums[:, 2 : 2 + order], sums[:, 2 + ORDERS : 2 + ORDERS + order]
        precision = ((right + tiny) / (said + small)).prod(axis=1) ** (1.0 / order)
        ratio = (sums[:, 0] + tiny) / (sums[:, 1] + small)
        penalty = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
        return np.asarray(100.0 * precision * penalty, dtype=np.float64)

    return combine


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two token lists."""
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | (1 << i)
    full = (1 << len(a)) - 1
    open_places = full
    for token in b:
        hit = open_places & places.get(token, 0)
        open_places = ((open_places + hit) | (open_places - hit)) & full
    return len(a) - open_places.bit_count()


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return ROUGE-L of a token list against several; 0 when nothing is common or the candidate is empty."""
    if not candidate:
        return 0.0
    common = [(_common_subsequence(candidate, r), len(r)) for r in references if r]
    precision = max((hits / len(candidate) for hits, _ in common), default=0.0)
    recall = max((hits / length for hits, length in common), default=0.0)
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
