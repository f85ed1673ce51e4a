"""Metrics shared by benchmarks with text answers: exact match with its reference levels, and the caption metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.benchmarks._results import Results
from pipeline.metrics import captions
from pipeline.metrics.answers import best_constant, cleaned_match, comparable, leo_match, refined_match


def add_exact_match(
    results: Results, texts: Sequence[str], references: Sequence[Sequence[str]], *, clean: bool, types: Sequence[str]
) -> None:
    """Add ``em`` (on cleaned texts if ``clean``, else with two cleaned forms), ``em_refined``, LEO's two and the levels of
    constant answers; all and per subset.
    """
    cleaned = [comparable(t) for t in texts]
    cleaned_references = [tuple(comparable(r) for r in refs) for refs in references]
    said, truth = (cleaned, cleaned_references) if clean else (list(texts), [tuple(r) for r in references])
    results.mean("em", [t in refs for t, refs in zip(said, truth, strict=True)])
    if not clean:
        forms = [cleaned_match(t, refs) for t, refs in zip(texts, references, strict=True)]
        results.mean("em_cleaned", [both for both, _ in forms])
        results.mean("em_cleaned_raw", [one for _, one in forms])
    results.mean("em_refined", [refined_match(t, refs) for t, refs in zip(cleaned, cleaned_references, strict=True)])
    leo = np.array([leo_match(t, refs) for t, refs in zip(texts, references, strict=True)]).reshape(-1, 2)
    results.mean("em_leo", leo[:, 0])
    results.mean("em_refined_leo", leo[:, 1])
    results.mean("em", best_constant(truth), reference="best_constant", subsets=False)
    results.mean("em", best_constant(truth, types), reference="type_majority")


def add_caption_metrics(
    results: Results,
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    meteor: bool,
    suffix: str = "",
    bleu_orders: Sequence[int] = (1, 2, 3, 4),
) -> None:
    """Add CIDEr, BLEU, METEOR and ROUGE-L x100 of candidates against several references each, white space collapsed."""
    said = [captions.one_line(t) for t in candidates]
    truth = [tuple(captions.one_line(r) for r in refs) for refs in references]
    if not said:
        return
    table = captions.NGrams(said, truth)
    results.mean(f"cider{suffix}", table.cider())
    statistics = table.bleu_statistics()
    for order in bleu_orders:
        results.corpus(f"bleu{order}{suffix}", statistics, captions.bleu_combiner(order))
    if meteor:
        with captions.meteor_runtime(r for refs in truth for r in refs) as runtime:
            lines, single = runtime.statistics(said, truth)
            results.corpus(f"meteor{suffix}", lines, runtime.combine, per_sample=single)
    results.mean(
        f"rougeL{suffix}", [captions.rouge_l(t.split(), [r.split() for r in refs]) for t, refs in zip(said, truth, strict=True)]
    )
