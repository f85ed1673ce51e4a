"""Held-out accuracy per kind of question against the best constant answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from pipeline.backbones._transformers.assemble import prefix_embeds
from pipeline.backbones._transformers.generate import encode_prefix, greedy
from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.training.pretrain2d.loop import prompt
from pipeline.training.pretrain2d.views import View, ViewImages, ViewQuestion

ANSWER_TOKENS = 32
VIEWS_PER_BATCH = 16


def best_constant(questions: Sequence[ViewQuestion]) -> float:
    """Return the share of questions that the most frequent right answer answers (chosen on these very questions)."""
    counts = Counter(answer for q in questions for answer in set(q.answers))
    return max(counts.values()) / len(questions) if counts else 0.0


def by_kind(questions: Sequence[ViewQuestion], texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return per kind: share of texts among the right answers, the best constant answer's share, and the number asked."""
    found: dict[str, dict[str, float]] = {}
    for kind in sorted({q.kind for q in questions}):
        chosen = [(q, t) for q, t in zip(questions, texts, strict=True) if q.kind == kind]
        right = sum(text.strip().lower() in {a.strip().lower() for a in q.answers} for q, text in chosen)
        found[kind] = {
            "accuracy": round(right / len(chosen), 4),
            "best_constant": round(best_constant([q for q, _ in chosen]), 4),
            "n": len(chosen),
        }
    return found


def _limited(views: Sequence[View], limit: int) -> Iterator[View]:
    """Yield views until ``limit`` questions are reached."""
    asked = 0
    for view in views:
        if asked >= limit:
            return
        asked += len(view.questions)
        yield view


@torch.no_grad()
def held_out_scores(
    loaded: LoadedTransformersModel, views: Sequence[View], images: ViewImages, *, device: str, limit: int = 1500
) -> dict[str, dict[str, float]]:
    """Answer about ``limit`` questions of held-out views greedily and score them per kind."""
    loaded.model.eval()
    chosen = list(_limited(views, limit))
    questions: list[ViewQuestion] = []
    texts: list[str] = []
    for start in range(0, len(chosen), VIEWS_PER_BATCH):
        batch = chosen[start : start + VIEWS_PER_BATCH]
        rgb = images.stack(batch)
        height, width = rgb.shape[1:3]
        visual = loaded.encode_views(loaded.preprocess(rgb).to(device)[:, None], height, width)
        prefix = loaded.prefix(1, height, width)
        cache = encode_prefix(loaded, prefix, prefix_embeds(loaded, prefix, visual))
        asked = [(row, q) for row, view in enumerate(batch) for q in view.questions]
        ids = [loaded.question_ids(prompt(q)) for _, q in asked]
        texts += greedy(loaded, cache, ids, [row for row, _ in asked], max_new_tokens=ANSWER_TOKENS)
        questions += [q for _, q in asked]
    return by_kind(questions, texts)
