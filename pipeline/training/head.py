"""Trained heads beside the MLLM: the alignment projector and the grounding head. Formulas: docs/method.md.

Object features are handed in as (f_vis + f_llm) / 2 per candidate box (training/model.py). Heads compute in float32 outside
autocast: they are small and their cosines decide the ranking.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize

from pipeline.training.losses import EPSILON, grounding_logits


class AlignmentHead(nn.Module):
    """Linear(C, mC) - GELU - Linear(mC, D): student states into the teacher's space (m = 2 in the paper)."""

    def __init__(self, student_dim: int, teacher_dim: int, multiple: int = 2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(student_dim, multiple * student_dim),
            nn.GELU(),
            nn.Linear(multiple * student_dim, teacher_dim),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Project (..., C) to (..., D)."""
        projected: torch.Tensor = self.layers(hidden)
        return projected


def _mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim, eps=1e-5), nn.Linear(dim, dim))


class GroundingHead(nn.Module):
    """Chooses among candidate boxes and "no such object" (zero target, the last column) by cosine similarity.

    ``unseen`` is a learned embedding that stands in for the appearance of a box that no visual cell shows; the
    reference gives such boxes a zero vector, so that they differ by position only and nothing marks them as invisible.
    """

    def __init__(self, dim: int, temperature: float = 0.07):
        super().__init__()
        self.temperature = temperature
        self.object_mlp = _mlp(dim)
        self.query_mlp = _mlp(dim)
        self.zero_target = nn.Parameter(torch.randn(dim))
        self.unseen = nn.Parameter(0.02 * torch.randn(dim))

    def embed_objects(self, features: torch.Tensor) -> torch.Tensor:
        """Return unit rows (S,N+1,D) of candidate features (S,N,D) followed by the zero target."""
        zero = self.zero_target.to(features.dtype).expand(len(features), 1, -1)
        return normalize(self.object_mlp(torch.cat([features, zero], dim=1)), dim=-1, eps=EPSILON)

    def forward(self, features: torch.Tensor, present: torch.Tensor, query: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
        """Return logits (Q,N+1) of all questions of a batch of scenes.

        ``features`` (S,N,C) candidates padded to N, ``has_features`` (S,N) bool, ``query`` (Q,C) hidden states at ``<ground>``,
        ``scene`` (Q,) the row of each question's scene. The zero target is always present.
        """
        objects = self.embed_objects(features)
        queries = normalize(self.query_mlp(query), dim=-1, eps=EPSILON)
        always = torch.ones(len(present), 1, dtype=torch.bool, device=present.device)
        mask = torch.cat([present, always], dim=1)
        return grounding_logits(objects[scene], queries, mask[scene], self.temperature)
