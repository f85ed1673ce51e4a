"""Several questions behind ONE visual prefix: token rows, block mask, restarted positions, where losses are read.

Under causal attention a scene's visual tokens do not depend on the question, so a scene's row is

    [prefix][question 1 + answer 1][question 2 + answer 2] ...

where the prefix is causal, every block sees the prefix and itself causally but no other block, and every block's positions
start again at ``prefix.next_position``. Loss and gradients equal those of separate samples that repeat the scene.
The last token of an answer is a target only, so it is not fed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

PADDING = -1


@dataclass(frozen=True, slots=True)
class Question:
    """Tokens of one question: ``ids`` int64 (T,) fed to the model; ``first`` the index in ``ids`` whose output predicts the
    first of ``targets`` (empty: grounding); ``ground``/``coord`` indices of those tokens in ``ids`` or -1."""

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    first: int
    ground: int = -1
    coord: int = -1


def make_question(question: Sequence[int], answer: Sequence[int], *, ground_id: int, coord_id: int) -> Question:
    """Make a question from its token ids and its answer's (end of turn included).

    An answer that contains ``<ground>`` is a grounding answer: it has no language loss; the hidden state at ``<ground>`` is
    its query and nothing after it is fed.
    """
    asked, told = np.asarray(question, dtype=np.int64), np.asarray(answer, dtype=np.int64)
    coord = int(np.flatnonzero(asked == coord_id)[0]) if (asked == coord_id).any() else -1
    if (told == ground_id).any():
        end = int(np.flatnonzero(told == ground_id)[0])
        ids = np.concatenate([asked, told[: end + 1]])
        return Question(ids, told[:0], 0, ground=len(ids) - 1, coord=coord)
    return Question(np.concatenate([asked, told[:-1]]), told, len(asked) - 1, coord=coord)


@dataclass(frozen=True, slots=True)
class PackedText:
    """The questions of S scenes as padded rows of length L.

    ``ids``, ``block`` (number of the question in its scene, -1 padding) and ``offset`` (place in the block) are int64 (S,L).
    Row references are flat indices into (S*L): ``target_rows``/``target_ids``/``target_question`` (M,) for answer tokens,
    ``ground_rows``/``ground_question`` (Qg,), ``coord_rows``/``coord_question`` (Qc,). Questions are numbered over all
    scenes; ``scene`` (Q,) is each one's scene.
    """

    ids: torch.Tensor
    block: torch.Tensor
    offset: torch.Tensor
    target_rows: torch.Tensor
    target_ids: torch.Tensor
    target_question: torch.Tensor
    ground_rows: torch.Tensor
    ground_question: torch.Tensor
    coord_rows: torch.Tensor
    coord_question: torch.Tensor
    scene: torch.Tensor

    def to(self, device: str | torch.device) -> PackedText:
        """Move the texts to another device."""
        return PackedText(*(getattr(self, name).to(device) for name in self.__slots__))


def pack(scenes: Sequence[Sequence[Question]], *, pad_id: int = 0) -> PackedText:
    """Lay the questions of each scene one after another and pad the rows to one length."""
    length = max(sum(len(q.ids) for q in questions) for questions in scenes)
    ids = np.full((len(scenes), length), pad_id, dtype=np.int64)
    block = np.full((len(scenes), length), PADDING, dtype=np.int64)
    offset = np.zeros((len(scenes), length), dtype=np.int64)
    rows: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("target", "ids", "question", "ground", "coord")}
    numbers: dict[str, list[int]] = {"ground": [], "coord": []}
    scene_of: list[int] = []
    for s, questions in enumerate(scenes):
        start = 0
        for b, question in enumerate(questions):
            number, end = len(scene_of), start + len(question.ids)
            ids[s, start:end], block[s, start:end], offset[s, start:end] = question.ids, b, np.arange(end - start)
            first = s * length + start
            rows["target"].append(first + question.first + np.arange(len(question.targets)))
            rows["ids"].append(question.targets)
            rows["question"].append(np.full(len(question.targets), number, dtype=np.int64))
            for name, place in (("ground", question.ground), ("coord", question.coord)):
                if place >= 0:
                    rows[name].append(np.array([first + place], dtype=np.int64))
                    numbers[name].append(number)
            scene_of.append(s)
            start = end

    return PackedText(
        ids=torch.from_numpy(ids),
        block=torch.from_numpy(block),
        offset=torch.from_numpy(offset),
        target_rows=_joined(rows["target"]),
        target_ids=_joined(rows["ids"]),
        target_question=_joined(rows["question"]),
        ground_rows=_joined(rows["ground"]),
        ground_question=torch.tensor(numbers["ground"], dtype=torch.int64),
        coord_rows=_joined(rows["coord"]),
        coord_question=torch.tensor(numbers["coord"], dtype=torch.int64),
        scene=torch.tensor(scene_of, dtype=torch.int64),
    )


def _joined(parts: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([*parts, np.empty(0, dtype=np.int64)]))


def block_mask(prefix_length: int, block: torch.Tensor) -> torch.Tensor:
    """Return bool (S,1,T,T), True = may attend, for rows [prefix][blocks], T = prefix_length + L, from ``block`` (S,L).

    Prefix: causal. Block: the whole prefix and itself causally. Padding is a block of its own, so no row is empty.
    """
    shared = torch.full((len(block), prefix_length), PADDING - 1, dtype=block.dtype, device=block.device)
    label = torch.cat([shared, block], dim=1)
    length = label.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=block.device).tril()
    same = label[:, :, None] == label[:, None, :]
    of_prefix = torch.arange(length, device=block.device) < prefix_length
    return ((same | of_prefix) & causal)[:, None]


def block_positions(prefix_positions: torch.Tensor, next_position: int, offset: torch.Tensor) -> torch.Tensor:
    """Return position ids int64 (A,S,T): the prefix's (A,P), then each block's from ``next_position`` (``offset`` (S,L))."""
    axes, scenes = len(prefix_positions), len(offset)
    head = prefix_positions[:, None].expand(axes, scenes, -1)
    return torch.cat([head, (next_position + offset).expand(axes, *offset.shape)], dim=2)
