"""Words of cells: what each visual token shows, in the words of the language model's own vocabulary. 2D only.

A released MLLM's vision tower was trained on hundreds of millions of captioned pictures before the language model met it. Here
that stage is stood in for by tagging cells: the visual token of a cell is drawn towards the embeddings of the category
and colour words of the objects that the cell's pixels show. Which pixels show which object follows from depth and boxes, as
a labelling tool; the labels themselves (this cell: red, chair) hold no position, size or relation in space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.scenes.geometry import box_coverage, unproject
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import SceneObject
from pipeline.training.pretrain2d.views import View

TEMPERATURE = 0.07
TOKEN_NORM = 2.0
"""Length of visual tokens that the language model learns to read; word embeddings start with 1.7."""
BACKGROUND_WEIGHT = 0.1
"""Weight of a cell's share that no object covers."""
BACKGROUND = "wall"
"""Word of what no object covers: walls, floor and ceiling."""
MARGIN_M = 0.02
"""Boxes grow by this much on every side, so that noisy depth on an object's surface still counts as the object."""
_ATTRIBUTES = ("color",)


class CellWords:
    """Target distributions over words for the cells of views, and the loss of visual tokens against them.

    Empty (``bool`` False) when the dataset's training scenes have no annotated objects.
    """

    def __init__(self, index: SceneIndex, views: Sequence[View], loaded: LoadedTransformersModel):
        self._index, self._loaded = index, loaded
        scenes = list(dict.fromkeys(view.scene_id for view in views))
        objects = [o for scene in scenes for o in index.records[scene].objects]
        words = sorted({word for o in objects for word in _words(o)} | ({BACKGROUND} if objects else set()))
        tokens = {word: _token_ids(loaded, word) for word in words}
        ids = sorted({t for found in tokens.values() for t in found})
        place = {token: column for column, token in enumerate(ids)}
        self._ids = torch.tensor(ids)
        self._columns = {word: [place[t] for t in found] for word, found in tokens.items()}
        self._targets: dict[str, NDArray[np.float16]] = {}
        self._coverage: dict[str, NDArray[np.float16]] = {}

    def __bool__(self) -> bool:
        return bool(self._columns)

    def targets(self, views: Sequence[View], mirrored: Sequence[bool]) -> torch.Tensor:
        """Return distributions (n, cells, words) for views, mirrored ones with their columns reversed."""
        rows = []
        for view, mirror in zip(views, mirrored, strict=True):
            frame = self._index.records[view.scene_id].frame_ids.index(view.frame_id)
            target = self._scene(view.scene_id)[frame]
            rows.append(target[:, ::-1] if mirror else target)
        stacked = np.stack(rows).astype(np.float32)
        return torch.from_numpy(stacked.reshape(len(rows), -1, len(self._ids)))

    def _scene(self, scene_id: str) -> NDArray[np.float16]:
        """Return targets (V,G,K,words) of a scene, kept (about 9 kB a scene of 6 views with 4x4 cells)."""
        if scene_id not in self._targets:
            scene = self._index.load(scene_id)
            record = scene.record
            grid = self._loaded.view_grid(*record.image_size)
            points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
            boxes = np.array([o.box for o in record.objects], dtype=np.float64).reshape(-1, 6)
            boxes[:, 3:] += 2 * MARGIN_M
            coverage = box_coverage(points, valid, boxes, grid)
            self._coverage[scene_id] = coverage.astype(np.float16)
            self._targets[scene_id] = self._distribution(record.objects, coverage, grid)
        return self._targets[scene_id]

    def coverage(self, view: View, mirror: bool) -> tuple[list[tuple[str, str]], NDArray[np.float32]]:
        """Return (category, colour) of a scene's objects and the share (N,cells) of a view's cells that each covers."""
        if not self:
            return [], np.zeros((0, 0), dtype=np.float32)
        self._scene(view.scene_id)
        record = self._index.records[view.scene_id]
        share = self._coverage[view.scene_id][:, record.frame_ids.index(view.frame_id)].astype(np.float32)
        share = share[:, :, ::-1] if mirror else share
        return [(o.category, o.attributes.get("color", "")) for o in record.objects], share.reshape(len(share), -1)

    def _distribution(
        self, objects: Sequence[SceneObject], coverage: NDArray[np.float32], grid: TokenGrid
    ) -> NDArray[np.float16]:
        """Turn coverage (N,V,G,K) of objects into word distributions (V,G,K,words): each object's share over its words."""
        views = coverage.shape[1]
        target = np.zeros((views, grid.rows, grid.cols, len(self._ids)), dtype=np.float32)
        for thing, share in zip(objects, coverage, strict=True):
            words = [self._columns[word] for word in _words(thing) if word in self._columns]
            for columns in words:
                for column in columns:
                    target[..., column] += share / (len(words) * len(columns))
        background = self._columns[BACKGROUND]
        rest = BACKGROUND_WEIGHT * np.clip(1.0 - coverage.sum(0), 0.0, None) + 1e-3
        target[..., background] += rest[..., None] / len(background)
        return (target / target.sum(-1, keepdims=True)).astype(np.float16)

    def loss(self, visual: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the words nearest to visual tokens (n, cells, C) against ``targets``; a scalar.

        A token's distribution is the softmax of its cosines with the word embeddings over a temperature; its norm is drawn
        to TOKEN_NORM. Words are fixed here: vision learns the language model's words, not the other way round.
        """
        cosines = normalize(visual.float(), dim=-1) @ self._words(visual.device).detach().T
        named = -(targets.to(visual.device) * (cosines / TEMPERATURE).log_softmax(-1)).sum(-1).mean()
        return named + (visual.float().norm(dim=-1) / TOKEN_NORM - 1).square().mean()

    def true_tokens(self, targets: torch.Tensor, device: str) -> torch.Tensor:
        """Return stand-ins (..., C) for visual tokens: each cell's (..., words) mean word embedding, of norm TOKEN_NORM."""
        return TOKEN_NORM * normalize(targets.to(device) @ self._words(torch.device(device)), dim=-1)

    def name_tokens(self, names: Sequence[tuple[str, ...]], device: str) -> torch.Tensor:
        """Return stand-ins (n, C) for visual tokens that show a single object each, named by these words."""
        targets = torch.zeros(len(names), len(self._ids))
        for row, name in zip(targets, names, strict=True):
            for columns in (self._columns[word] for word in name if word in self._columns):
                row[columns] = 1.0 / len(columns)
        return self.true_tokens(targets, device)

    def _words(self, device: torch.device) -> torch.Tensor:
        """Return unit embeddings (words, C)."""
        return normalize(self._loaded.embed(self._ids.to(device)).float(), dim=-1)


def _words(thing: SceneObject) -> list[str]:
    return [thing.category, *(thing.attributes[name] for name in _ATTRIBUTES if name in thing.attributes)]


def _token_ids(loaded: LoadedTransformersModel, word: str) -> list[int]:
    """Return the tokens of a word at the start of a text and inside one (byte-level BPE distinguishes them)."""
    found = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}")]
    return list(dict.fromkeys(token for ids in found for token in ids))
