"""The two losses of 3DRS as pure functions: alignment of visual tokens to a 3D teacher and grounding by InfoNCE.

Formulas and sources: docs/method.md. The released code's present form of the alignment loss is ||a/|a| - b/|b|||^2 =
2 (1 - cos) at weight 1, so weight 2 here. Unlike it, norms have an epsilon and InfoNCE is computed in log space.
All arithmetic is float32, whatever the inputs are.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

EPSILON = 1e-8
"""Floor of a vector's norm: a zero vector (an unseen token) has cosine 0 instead of NaN."""


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return ``1 - cos`` per token of (..., D) and (..., D) -> (...). No gradient flows into ``teacher``."""
    a = normalize(student.float(), dim=-1, eps=EPSILON)
    b = normalize(teacher.detach().float(), dim=-1, eps=EPSILON)
    return 1.0 - (a * b).sum(-1)


def alignment_loss(student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over scenes of the (weighted) mean over tokens of ``1 - cos``; a scalar.

    ``student`` and ``teacher`` (S,N,D), the teacher already averaged into the student's cells (average first, normalise
    after); ``weights`` (S,N) >= 0. A scene whose weights are all zero counts as 0.
    """
    distance = cosine_distance(student, teacher)
    if weights is None:
        return distance.mean()
    weights = weights.float()
    return ((distance * weights).sum(-1) / weights.sum(-1).clamp_min(EPSILON)).mean()


def grounding_logits(
    objects: torch.Tensor, query: torch.Tensor, present: torch.Tensor, temperature: float = 0.07
) -> torch.Tensor:
    """Return cosines over temperature, (Q,N+1), of ``objects`` (Q,N+1,D), unit rows, the zero target last, and ``query`` (Q,D).

    ``has_features`` (Q,N+1) bool; absent candidates (padding) get -inf.
    """
    scores = torch.einsum("qnd,qd->qn", objects.float(), query.float()) / temperature
    return scores.masked_fill(~present, -torch.inf)


def grounding_loss(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Return InfoNCE per question: ``-log(sum over positives of e^logit / sum over all)``; (Q,N+1) and bool (Q,N+1) -> (Q,).

    Any number of positives; a question without a target has the zero target (last column) as its positive.
    """
    none = ~positives.any(-1)
    positives = positives.clone()
    positives[:, -1] |= none
    chosen = logits.masked_fill(~positives, -torch.inf)
    return torch.logsumexp(logits, -1) - torch.logsumexp(chosen, -1)


def mean_per_question(token_losses: torch.Tensor, question: torch.Tensor, questions: int) -> torch.Tensor:
    """Average losses over each question's answer tokens: (T,) losses and their question numbers (T,) -> (questions,).

    Questions without answer tokens (grounding) get 0.
    """
    zeros = token_losses.new_zeros(questions)
    sums = zeros.index_add(0, question, token_losses)
    counts = zeros.index_add(0, question, torch.ones_like(token_losses))
    return sums / counts.clamp_min(1.0)
