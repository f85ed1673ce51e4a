"""Descriptions without a picture, both ways: "it is a purple table with a television on it" <-> purple table. Language only.

A released language model knows what a sentence is about, and how things are described, before it sees a picture. Here both are
learned with the forms of question, tokens and losses that scenes will use. Referring: the hidden state at ``<ground>`` is
compared with the names (category and colour, as word embeddings) of the objects in a room, and with "not there". Describing: a
name stands at ``<coord>`` and the description is the answer. Positions are never given, so the words about space can
be separated from the name but not understood.

Measured (InternVL tiny, 64 descriptions a step, one core): right in 93 % of held-out descriptions after 40 steps, 10 s.
Without this stage, fine-tuning runs of 60 steps left grounding at chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pipeline.backbones._transformers.assemble import causal_mask
from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.backbones._transformers.prompts import user_text
from pipeline.backbones._transformers.tokenizer import token_id
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN
from pipeline.benchmarks.scanrefer import ScanRefer, ScanReferOptions
from pipeline.core.provenance import seed_for
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Sample, SceneObject
from pipeline.training.head import GroundingHead
from pipeline.training.losses import grounding_loss, mean_per_question
from pipeline.training.packing import PackedText, Question, make_question, pack
from pipeline.training.pretrain2d.cells import CellWords

SOURCE = "scanrefer"
"""Benchmark whose training samples are the descriptions."""
NOT_THERE = 0.15
"""Share of descriptions that are asked in a room which has no such thing."""

Name = tuple[str, str]
"""Category and colour."""


class GroundQuestions:
    """Grounding questions from descriptions: the prompt of the benchmarks, then ``<ground>``. Tokenised once each."""

    def __init__(self, loaded: LoadedTransformersModel):
        self._loaded, self._made = loaded, dict[str, Question]()
        self._ground = token_id(loaded.tokenizer, GROUND_TOKEN)

    def __call__(self, text: str) -> Question:
        """Return the question of a description."""
        if text not in self._made:
            asked = self._loaded.question_ids(user_text(Sample("", "", "", "grounding", text=text)))
            self._made[text] = make_question(asked, self._loaded.answer_ids(GROUND_TOKEN), ground_id=self._ground, coord_id=-1)
        return self._made[text]


class CaptionQuestions:
    """Caption questions with a description as the answer: the prompt of the benchmarks with ``<coord>`` in it."""

    def __init__(self, loaded: LoadedTransformersModel):
        self._loaded, self._made = loaded, dict[str, Question]()
        self._asked = loaded.question_ids(user_text(Sample("", "", "", "caption")))
        self._coord = token_id(loaded.tokenizer, COORD_TOKEN)

    def __call__(self, text: str) -> Question:
        """Return the question that a description answers."""
        if text not in self._made:
            told = self._loaded.answer_ids(text)
            self._made[text] = make_question(self._asked, told, ground_id=-1, coord_id=self._coord)
        return self._made[text]


@dataclass(frozen=True, slots=True)
class Description:
    """A description from a scene and the name of what it describes."""

    text: str
    scene_id: str
    name: Name


@dataclass(frozen=True, slots=True)
class Choice:
    """A description's ``text``, its ``name`` and the ``names`` to choose from (without ``name``: not there)."""

    text: str
    name: Name
    names: tuple[Name, ...]


def name_of(thing: SceneObject) -> Name:
    """Return category and colour of an object; an unknown colour is an empty word."""
    return thing.category, thing.attributes.get("color", "")


def read_descriptions(index: SceneIndex, scenes: Sequence[str]) -> list[Description]:
    """Read the training descriptions of ``scenes`` in file order; none where the dataset has no such annotation."""
    if "train" not in index.content["annotations"].get(SOURCE, {}):
        return []
    benchmark = ScanRefer(SOURCE, ScanReferOptions())
    wanted = set(scenes)
    return [
        Description(sample.text, sample.scene_id, name_of(index.records[sample.scene_id].object(sample.target_ids[0])))
        for sample in benchmark.samples(index, "train")
        if sample.scene_id in wanted
    ]


class Referring:
    """Draws descriptions and computes their loss; ``bool`` False when the dataset has none."""

    def __init__(
        self,
        index: SceneIndex,
        scenes: Sequence[str],
        words: CellWords,
        loaded: LoadedTransformersModel,
        *,
        per_step: int,
        seed: int,
    ):
        self._words, self._loaded, self._per_step, self._seed = words, loaded, per_step, seed
        self._descriptions = read_descriptions(index, scenes) if words else []
        described = dict.fromkeys(d.scene_id for d in self._descriptions)
        self._names = {s: tuple(dict.fromkeys(name_of(o) for o in index.records[s].objects)) for s in described}
        self._scenes = list(described)
        self._question, self._caption = GroundQuestions(loaded), CaptionQuestions(loaded)

    def __bool__(self) -> bool:
        return bool(self._descriptions)

    def draw(self, step: int) -> list[Choice]:
        """Draw the choices of a step; a function of seed and step alone."""
        random = np.random.default_rng(seed_for("referring", self._seed, step))
        return [
            self._choice(self._descriptions[int(n)], random)
            for n in random.integers(len(self._descriptions), size=self._per_step)
        ]

    def _choice(self, drawn: Description, random: np.random.Generator) -> Choice:
        names = self._names[drawn.scene_id]
        if random.random() < NOT_THERE:
            other = self._scenes[int(random.integers(len(self._scenes)))]
            names = tuple(name for name in self._names[other] if name != drawn.name)
        return Choice(drawn.text, drawn.name, names)

    def loss(self, choices: Sequence[Choice], head: GroundingHead, device: str) -> torch.Tensor:
        """Return the mean InfoNCE over the choices, a scalar."""
        names = sorted({name for choice in choices for name in choice.names})
        place = {name: row for row, name in enumerate(names)}
        most = max(len(choice.names) for choice in choices)
        rows = torch.zeros(len(choices), most, dtype=torch.long)
        present = torch.zeros(len(choices), most, dtype=torch.bool)
        right = torch.zeros(len(choices), most + 1, dtype=torch.bool)
        for row, choice in enumerate(choices):
            count = len(choice.names)
            rows[row, :count] = torch.tensor([place[name] for name in choice.names], dtype=torch.long)
            present[row, :count] = True
            right[row, :count] = torch.tensor([name == choice.name for name in choice.names], dtype=torch.bool)
        objects = self._words.name_tokens(names, device)[rows.to(device)]
        own = torch.arange(len(choices), device=device)
        logits = head(objects, present.to(device), self.queries([c.text for c in choices], device), own)
        return grounding_loss(logits, right.to(device)).mean()

    def queries(self, texts: Sequence[str], device: str) -> torch.Tensor:
        """Return hidden states (Q,C) float32 at ``<ground>`` of descriptions without any view."""
        text = pack([[self._question(t)] for t in texts]).to(device)
        return self._states(text, self._loaded.embed(text.ids))[text.ground_rows].float()

    def describing_loss(self, choices: Sequence[Choice], device: str) -> torch.Tensor:
        """Return descriptions' mean (over tokens, then descriptions) cross-entropy behind the name at ``<coord>``, a scalar."""
        text = pack([[self._caption(choice.text)] for choice in choices]).to(device)
        named = self._words.name_tokens([choice.name for choice in choices], device)
        embeds = self._loaded.embed(text.ids)
        embeds = embeds.flatten(0, 1).index_add(0, text.coord_rows, named.to(embeds.dtype)).view_as(embeds)
        logits = self._loaded.logits(self._states(text, embeds)[text.target_rows]).float()
        losses = cross_entropy(logits, text.target_ids, reduction="none")
        return mean_per_question(losses, text.target_question, len(choices)).mean()

    def _states(self, text: PackedText, embeds: torch.Tensor) -> torch.Tensor:
        """Return last states (rows*T,C) of texts without any view, at the positions they would have behind one."""
        (count, length), device = text.ids.shape, text.ids.device
        prefix = self._loaded.prefix(1, *self._loaded.image_size)
        positions = prefix.next_position + torch.arange(length, device=device)
        mask = causal_mask(length, device).expand(count, -1, -1, -1)
        return self._loaded.language(embeds, positions.expand(len(prefix.positions), count, length), mask)[-1].flatten(0, 1)
