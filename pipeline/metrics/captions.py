"""Caption metrics, with the definitions of pycocoevalcap: corpus BLEU, CIDEr, ROUGE-L, METEOR 1.5.

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

__all__ = [
    "bleu_combiner",
    "bleu_statistics",
    "cider",
    "meteor_runtime",
    "one_line",
    "rouge_l",
    "scan2cap_text",
]

_ORDERS = 4
_BETA = 1.2
_BARS = re.compile(r"\|{3,}")


def one_line(text: str) -> str:
    """White space collapsed, ``|||`` (METEOR's separator) taken out: safe for every scorer's protocol."""
    return " ".join(_BARS.sub(" ", text).split())


def scan2cap_text(text: str, *, collapse: bool = True) -> str:
    """Scan2Cap's form of a caption: ``sos`` and ``eos`` around it, "." and "," set apart, lower case.

    ``collapse=False`` keeps the double blanks that this makes, as the published script does.
    """
    marked = "sos " + text.replace(".", " . ").replace(",", " , ").lower() + " eos"
    return one_line(marked) if collapse else marked


def bleu_statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Sufficient statistics (n,10): candidate length, closest reference length, n-grams said (4), n-grams right (4)."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    rows = np.zeros((len(candidates), 2 + 2 * _ORDERS))
    for i, (said, truth) in enumerate(zip(candidates, references, strict=True)):
        cooked = cook_test(said, cook_refs(truth, n=_ORDERS), eff="closest", n=_ORDERS)
        rows[i] = [cooked["testlen"], cooked["reflen"], *cooked["guess"], *cooked["correct"]]
    return rows


def bleu_combiner(order: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Function from summed statistics (R,10) to BLEU-``order`` x100 (R,), with pycocoevalcap's smoothing constants."""
    small, tiny = 1e-9, 1e-15

    def combine(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        said, right = sums[:, 2 : 2 + order], sums[:, 2 + _ORDERS : 2 + _ORDERS + order]
        precision = ((right + tiny) / (said + small)).prod(axis=1) ** (1.0 / order)
        ratio = (sums[:, 0] + tiny) / (sums[:, 1] + small)
        penalty = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
        return np.asarray(100.0 * precision * penalty, dtype=np.float64)

    return combine


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """CIDEr of every caption (n,), in the library's unit (0 to 10); the set's score is the mean."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if not any(r.split() for refs in references for r in refs):
        return np.zeros(len(candidates))
    scorer = CiderScorer(n=_ORDERS, sigma=6.0)
    for said, truth in zip(candidates, references, strict=True):
        scorer += (said, list(truth))
    _, single = scorer.compute_score()
    return np.asarray(single, dtype=np.float64)


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence of two token lists."""
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
    """ROUGE-L of a token list against several; 0 when nothing is common or the candidate is empty."""
    if not candidate:
        return 0.0
    common = [(_common_subsequence(candidate, r), len(r)) for r in references if r]
    precision = max((hits / len(candidate) for hits, _ in common), default=0.0)
    recall = max((hits / length for hits, length in common), default=0.0)
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
