"""The trained system: a backbone's parts, world positions, object features, alignment projectors and the grounding head.

Training and evaluation share ``see`` (views -> prefix embeddings), ``object_features`` and ``mark_coords``, so that both
feed the model the same thing. Formulas and sources: docs/method.md.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pipeline.backbones._transformers.assemble import prefix_embeds
from pipeline.backbones.base import LoadedBackbone, Prefix
from pipeline.core.errors import ConfigError
from pipeline.core.provenance import seed_for
from pipeline.study.recipe import Recipe
from pipeline.training.attention import block_layout, enable
from pipeline.training.data import SceneBatch, TrainingGroup
from pipeline.training.head import AlignmentHead, GroundingHead
from pipeline.training.losses import alignment_loss, grounding_loss, mean_per_question
from pipeline.training.packing import PackedText, block_mask, block_positions
from pipeline.training.positions import WorldPositions
from pipeline.training.pruning import last_feed_forward, only_rows


@dataclass(frozen=True, slots=True)
class SceneEncoding:
    """The encoding of S scenes before any question: the prefix's embeddings (S,P,C) and the projected visual tokens
    (S,M,C) without world positions."""

    prefix: Prefix
    embeds: torch.Tensor
    visual: torch.Tensor


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses: ``total`` (scalar with gradient); detached ``questions`` (Q,), ``alignment`` (scalar, None); see ``forward``."""

    total: torch.Tensor
    questions: torch.Tensor
    alignment: torch.Tensor | None


class SpatialMLLM(nn.Module):
    """A loaded backbone with the heads of a recipe. ``teacher_dim`` None: no alignment (teacher ``none``, evaluation).

    Every head is initialised from a generator of its own, so that heads which only exist with a teacher never
    change the initialisation of anything else.
    """

    def __init__(self, loaded: LoadedBackbone, recipe: Recipe, *, teacher_dim: int | None, seed: int):
        super().__init__()
        self.loaded, self.recipe = loaded, recipe
        self.backbone = loaded.model
        width = loaded.hidden_size
        with _own_generator(seed, "grounding"):
            self.grounding = GroundingHead(width, recipe.temperature)
        self.alignment = nn.ModuleDict()
        for layer in recipe.layers if teacher_dim else ():
            _check_layer(layer, loaded.num_layers)
            with _own_generator(seed, "alignment", layer):
                self.alignment[str(layer)] = AlignmentHead(width, teacher_dim or 0, recipe.projector_multiple)
        scale = recipe.world_position_scale
        self.world = WorldPositions(width, scale=scale) if recipe.world_positions else None
        self.sparse_attention = enable(loaded, "cpu")
        # Hooks are gone when checkpointed layers are computed again, so these two exclude each other.
        self.last_feed_forward = None if recipe.gradient_checkpointing else last_feed_forward(loaded)

    def place(self, device: str) -> SpatialMLLM:
        """Move everything to ``device``."""
        self.to(device)
        self.sparse_attention = enable(self.loaded, device)
        if self.world is not None:
            self.world.tables = [table.to(device) for table in self.world.tables]
        return self

    def autocast(self, device: str) -> AbstractContextManager[Any]:
        """Return a context for bf16 autocast where the recipe asks for it."""
        enabled = self.recipe.precision == "bfloat16"
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=enabled)

    # ------------------------------------------------------------ shared by training and evaluation

    def encode_scene(self, scenes: SceneBatch) -> SceneEncoding:
        """Encode the views; world positions are added to visual tokens of cells with valid depth only."""
        height, width = scenes.size_px
        visual = self.loaded.encode_views(scenes.pixels, height, width)
        placed = visual
        if self.world is not None:
            placed = visual + self.world(scenes.cell_voxels).to(visual.dtype) * scenes.cell_valid[..., None]
        prefix = self.loaded.prefix(scenes.views, height, width)
        return SceneEncoding(prefix, prefix_embeds(self.loaded, prefix, placed), visual)

    def box_features(self, scenes: SceneBatch, visual: torch.Tensor) -> torch.Tensor:
        """Pool visual tokens (S,M,C) over each box's cells to float32 (S,N,C); the learned embedding for unseen boxes."""
        with torch.autocast(visual.device.type, enabled=False):
            pooled = torch.bmm(scenes.pooling, visual.float())
        return torch.where(scenes.box_visible[..., None], pooled, self.grounding.unseen)

    def object_features(self, scenes: SceneBatch, visual: torch.Tensor, visual_states: torch.Tensor) -> torch.Tensor:
        """Return candidate features (S,N,C) = (f_vis + f_llm) / 2.

        f_vis: projected tokens before the LLM, plus the encoding of the box centre; f_llm: the LLM's last states (S,M,C).
        """
        before = self.box_features(scenes, visual)
        if self.world is not None:
            before = before + self.world(scenes.box_voxels)
        return (before + self.box_features(scenes, visual_states)) / 2

    def coord_features(self, scenes: SceneBatch, visual: torch.Tensor) -> torch.Tensor:
        """Return what is added to the ``<coord>`` embedding for each box, (S,N,C).

        With world positions the encoding of the box centre (Video-3D-LLM). Without them no visual token carries positions, so a
        centre could not be matched with anything: the box's pooled visual feature is added instead.
        """
        return self.world(scenes.box_voxels) if self.world is not None else self.box_features(scenes, visual)

    def mark_coords(
        self, embeds: torch.Tensor, rows: torch.Tensor, features: torch.Tensor, scene: torch.Tensor, box: torch.Tensor
    ) -> torch.Tensor:
        """Add ``features`` (S,N,C) of (scene, box) (K,) at flat ``rows`` (K,) of question embeddings (S,L,C)."""
        if not len(rows):
            return embeds
        flat = embeds.flatten(0, 1)
        return flat.index_add(0, rows, features[scene, box].to(flat.dtype)).view_as(embeds)

    # ------------------------------------------------------------ training

    def forward(self, group: TrainingGroup, *, questions: int, scenes: int) -> Losses:
        """Return one group's share of a step's loss: the sum over its questions divided by the step's ``questions``, plus the
        weighted alignment of its scenes as their share of the step's ``scenes``. Shares of all groups add up to the mean.
        """
        per_question, alignment = self._group_losses(group)
        total = per_question.sum() / questions
        if alignment is None:
            return Losses(total, per_question.detach(), None)
        share = alignment * (len(group.scenes) / scenes)
        return Losses(total + self.recipe.weight * share, per_question.detach(), share.detach())

    def _group_losses(self, group: TrainingGroup) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return per-question losses (Q,) and the alignment loss of scenes of one shape."""
        scenes, text = group.scenes, group.text
        with self.autocast(scenes.pixels.device.type):
            seen = self.encode_scene(scenes)
            states = self._states(group, seen)
            length = seen.embeds.shape[1]
            answered = states[-1][:, length:].flatten(0, 1)
            logits = self.loaded.logits(answered[text.target_rows])
        where = torch.from_numpy(seen.prefix.visual_index).to(logits.device)
        token_losses = cross_entropy(logits.float(), text.target_ids, reduction="none")
        losses = mean_per_question(token_losses, text.target_question, len(text.scene))
        if len(text.ground_rows):
            objects = self.object_features(scenes, seen.visual, states[-1][:, where])
            queries = answered[text.ground_rows].float()
            scene = text.scene[text.ground_question]
            choices = self.grounding(objects, scenes.box_present, queries, scene)
            losses = losses.index_add(0, text.ground_question, grounding_loss(choices, group.positives))
        return losses, self._alignment(scenes, states, where)

    def _states(self, group: TrainingGroup, seen: SceneEncoding) -> dict[int, torch.Tensor]:
        """Return hidden states (S,T,C) per layer of packed rows; meaningful where losses read them."""
        scenes, text, prefix = group.scenes, group.text, seen.prefix
        questions = self.loaded.embed(text.ids)
        if len(text.coord_rows):
            features = self.coord_features(scenes, seen.visual)
            pointing = text.scene[text.coord_question]
            questions = self.mark_coords(questions, text.coord_rows, features, pointing, group.coord_box)
        positions = torch.from_numpy(prefix.positions).to(questions.device)
        length = seen.embeds.shape[1]
        with only_rows(self.last_feed_forward, read_rows(prefix, text)):
            return self.loaded.language(
                torch.cat([seen.embeds, questions], dim=1),
                block_positions(positions, prefix.next_position, text.offset),
                self._mask(length, text),
                layers=sorted({-1, *(int(layer) for layer in self.alignment)}),
            )

    def _mask(self, prefix_length: int, text: PackedText) -> Any:
        """Return which tokens see which: the layout of blocks where the attention understands it, else the dense mask."""
        if self.sparse_attention:
            return block_layout(prefix_length, text.block, text.offset)
        return block_mask(prefix_length, text.block)

    def _alignment(self, scenes: SceneBatch, states: dict[int, torch.Tensor], where: torch.Tensor) -> torch.Tensor | None:
        """Return the mean alignment loss over the recipe's layers; None without a teacher."""
        if not self.alignment or scenes.teacher is None:
            return None
        losses = [
            alignment_loss(head(states[int(layer)][:, where].float()), scenes.teacher, scenes.teacher_weights)
            for layer, head in self.alignment.items()
        ]
        return torch.stack(losses).mean()


def read_rows(prefix: Prefix, text: PackedText) -> torch.Tensor:
    """Return flat rows of (S,T) whose last states are read: visual tokens, answer-predicting positions, grounding queries."""
    scenes, length = text.ids.shape
    total = len(prefix.input_ids) + length
    starts = torch.arange(scenes, device=text.ids.device)[:, None] * total
    visual = (starts + torch.from_numpy(prefix.visual_index).to(text.ids.device)).flatten()
    read = torch.cat([text.target_rows, text.ground_rows])
    row, place = torch.div(read, length, rounding_mode="floor"), read % length
    return torch.cat([visual, row * total + len(prefix.input_ids) + place])


class _own_generator:
    """Inside, torch's global generator is seeded from (seed, name) alone; outside it is as before."""

    def __init__(self, seed: int, *name: object):
        self._seed = seed_for("head", seed, *name)
        self._fork = torch.random.fork_rng(devices=[])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)


def _check_layer(layer: int, layers: int) -> None:
    if not -layers <= layer <= layers:
        raise ConfigError(
            f"the LLM has no layer {layer}", where="recipes.<name>.layers", allowed=f"-{layers} to {layers} for this backbone"
        )
