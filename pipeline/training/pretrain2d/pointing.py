"""Pointing in single views: "the red chair" -> the cells that show it. 2D only.

Released MLLMs have learned referring expressions on pictures before they meet 3D scenes; grounding then asks only for a new
head. Here that skill is learned with the same form of question, token and loss as grounding in scenes: the hidden state at
``<ground>`` is compared with the view's cells (their visual token and last state, averaged) and with "not there". The head
is thrown away after pretraining: every run begins with a grounding head of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.core.provenance import seed_for
from pipeline.training.head import GroundingHead
from pipeline.training.losses import grounding_loss
from pipeline.training.packing import Question
from pipeline.training.pretrain2d.cells import CellWords
from pipeline.training.pretrain2d.referring import GroundQuestions
from pipeline.training.pretrain2d.views import Draw

SHOWN = 0.15
"""A cell shows an object that covers at least this share of it, and does not below ABSENT; cells between are left out."""
ABSENT = 0.03
NOT_THERE = 0.15
"""Share of descriptions that fit nothing in the view."""


@dataclass(frozen=True, slots=True)
class Pointed:
    """A question with its cells: ``shown`` bool (cells,) are right, ``judged`` bool (cells,) take part at all."""

    question: Question
    shown: NDArray[np.bool_]
    judged: NDArray[np.bool_]


class Pointing:
    """Draws pointing questions for views and computes their loss. ``head`` is trained along and not saved with the model."""

    def __init__(self, words: CellWords, loaded: LoadedTransformersModel, *, per_view: int, seed: int):
        self._words, self._loaded, self._per_view, self._seed = words, loaded, per_view, seed
        self._question = GroundQuestions(loaded)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("pointing head", seed))
            self.head = GroundingHead(loaded.hidden_size)

    def draw(self, draw: Draw, step: int) -> list[list[Pointed]]:
        """Draw questions for every view of ``draw``; a function of seed and step alone."""
        random = np.random.default_rng(seed_for("pointing", self._seed, step))
        asked = []
        for view, mirror in zip(draw.views, draw.mirrored, strict=True):
            names, coverage = self._words.coverage(view, mirror)
            asked.append([self._pointed(names, coverage, random) for _ in range(self._per_view if len(names) else 0)])
        return asked

    def _pointed(self, names: list[tuple[str, str]], coverage: NDArray[np.float32], random: np.random.Generator) -> Pointed:
        """Return one question about a view whose objects are called ``names`` (category, colour) and cover (N,cells)."""
        visible = np.flatnonzero(coverage.max(1) >= SHOWN)
        if len(visible) == 0 or random.random() < NOT_THERE:
            category, colour = names[int(random.integers(len(names)))][0], names[int(random.integers(len(names)))][1]
        else:
            category, colour = names[int(random.choice(visible))]
        form = random.random()
        text = f"the {colour} {category}" if form < 0.6 else f"the {category}" if form < 0.8 else f"the {colour} object"
        fits = [(form >= 0.8 or c == category) and (0.6 <= form < 0.8 or k == colour) for c, k in names]
        covered = coverage[fits].max(0, initial=0.0)
        shown = covered >= SHOWN
        return Pointed(self._question(text), shown, shown | (covered < ABSENT))

    def loss(
        self, asked: list[list[Pointed]], visual: torch.Tensor, states: torch.Tensor, queries: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean InfoNCE of all questions (in the order of ``asked``), a scalar.

        ``visual`` and ``states`` (n,cells,C): visual tokens and their last states; ``queries`` (Q,C): states at <ground>.
        """
        pointed = [question for questions in asked for question in questions]
        device = queries.device
        scene = torch.tensor([n for n, questions in enumerate(asked) for _ in questions], device=device)
        shown = torch.from_numpy(np.stack([p.shown for p in pointed])).to(device)
        judged = torch.from_numpy(np.stack([p.judged for p in pointed])).to(device)
        features = (visual + states).float() / 2
        everything = torch.ones(features.shape[:2], dtype=torch.bool, device=device)
        logits = self.head(features, everything, queries.float(), scene)
        always = torch.ones(len(pointed), 1, dtype=torch.bool, device=device)
        logits = logits.masked_fill(~torch.cat([judged, always], 1), -torch.inf)
        return grounding_loss(logits, torch.cat([shown, ~always], 1)).mean()
