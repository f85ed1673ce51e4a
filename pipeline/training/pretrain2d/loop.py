"""The 2D pretraining loop in four stages, in the order in which released MLLMs are made.

1. Language: what a description is about, and describing (referring.py); no views at all.
2. Reading: questions and pointing behind cells that are given as true words (cells.py), and plain sentences. The language
   model learns to answer and to look things up; no pixels yet.
3. Vision: the tower and the projector learn to say each cell in the language model's words, which stay as they are.
4. All: questions about real views, the tower with a small learning rate.

The first three need annotated objects; a dataset without them goes straight to stage 4, at full rate for all. Answers are
learned by cross-entropy on their tokens, references by InfoNCE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from pipeline.backbones._transformers.assemble import causal_mask, prefix_embeds
from pipeline.backbones._transformers.loaded import LoadedTransformersModel
from pipeline.backbones._transformers.member import PretrainOptions
from pipeline.backbones._transformers.prompts import user_text
from pipeline.core.provenance import seed_for
from pipeline.optim.checkpoint import Checkpoints
from pipeline.optim.loop import Loop, StepLosses, means
from pipeline.optim.optimizer import decay_groups, schedule_factor, set_rates
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Sample
from pipeline.training.losses import mean_per_question
from pipeline.training.packing import Question, block_mask, block_positions, make_question, pack
from pipeline.training.pretrain2d.cells import CellWords
from pipeline.training.pretrain2d.pointing import Pointing
from pipeline.training.pretrain2d.referring import Choice, Referring
from pipeline.training.pretrain2d.views import Draw, View, ViewImages, ViewQuestion, ViewSampler

Losses = dict[str, tuple[float, torch.Tensor]]
"""Name -> (weight, loss)."""
CURVE_POINTS = 50
DESCRIBED = 2
"""One in this many descriptions of a step is also written."""
DESCRIBING_WEIGHT = 0.5
"""Weight of writing descriptions beside understanding them."""
LANGUAGE_WEIGHT = 0.25
"""Weight of the plain sentences' loss beside the questions'."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of training: its ``steps``; peak learning rates of the vision tower and of everything else."""

    name: Literal["referring", "reading", "word", "answer"]
    steps: int
    rate: float
    vision_rate: float


@dataclass(frozen=True, slots=True)
class StageBatch:
    """The input of a step: step ``number`` of a stage, and of what the stage needs the descriptions (n), the views and their
    questions (n), and the views' pixels uint8 (n,h,w,3)."""

    stage: Stage
    number: int
    choices: list[Choice]
    draw: Draw
    rgb: NDArray[np.uint8] | None


def prompt(question: ViewQuestion) -> str:
    """Return the user's text: the question-answering template of the benchmarks; captions stay unchanged."""
    if question.kind == "caption":
        return question.question
    return user_text(Sample("", "", "", "qa", text=question.question))


class Pretrainer(Loop[StageBatch]):
    """Trains ``loaded`` on ``views`` of ``index`` and on ``sentences``. ``folder`` holds checkpoints while it runs."""

    label = "pretrain"
    not_finite_fix = "lower the learning rates of the backbone's pretrain"
    memory_fix = "fewer at once: views_per_step, word_views_per_step or referring_per_step of the backbone's pretrain"

    def __init__(
        self,
        loaded: LoadedTransformersModel,
        index: SceneIndex,
        views: Sequence[View],
        sentences: Sequence[str],
        options: PretrainOptions,
        folder: Path,
        digest: str,
        device: str,
    ):
        self.loaded, self.options, self.device, seed = loaded, options, device, options.seed
        self.images = ViewImages(index, loaded.image_size)
        per_view = options.questions_per_view
        self.sampler = ViewSampler(views, views_per_step=options.views_per_step, questions_per_view=per_view, seed=seed)
        self.word_sampler = self.sampler.with_views_per_step(options.word_views_per_step)
        self.words = words = CellWords(index, views, loaded)
        scenes = list(dict.fromkeys(view.scene_id for view in views))
        self.referring = Referring(index, scenes, words, loaded, per_step=options.referring_per_step, seed=seed)
        self.pointing = Pointing(words, loaded, per_view=options.pointing_per_view if words else 0, seed=seed)
        self.pointing.head.to(device)
        self._sentences = [ids for text in sentences if (ids := loaded.answer_ids(text))]
        self._questions: dict[tuple[str, str], Question] = {}
        self.stages = _stages(options, bool(words), bool(self.referring))
        super().__init__(
            torch.nn.ModuleDict({"model": loaded.model, "pointing": self.pointing.head}),
            _optimizer(loaded, self.pointing.head, options),
            Checkpoints(folder / "checkpoints", digest),
            steps=sum(stage.steps for stage in self.stages),
            save_every=options.checkpoint_steps,
        )

    def curve(self) -> list[dict[str, float]]:
        """Return means of the losses between about 50 points, of which one ends every stage."""
        every, points, window = max(1, self.steps // CURVE_POINTS), [], []
        for step, found in enumerate(self.losses, 1):
            window.append({name: value for name, value in found.items() if name != "loss"})
            if step % every == 0 or self._stage(step)[1] == 0:
                points.append({"step": step} | {name: round(value, 5) for name, value in means(window).items()})
                window = []
        return points

    def set_rates(self, step: int) -> None:
        """Warm up and decay within every stage, at the stage's peak rates."""
        stage, number = self._stage(step)
        for group in self.optimizer.param_groups:
            group["peak"] = stage.vision_rate if group["name"] == "vision" else stage.rate
        set_rates(self.optimizer, schedule_factor(number, stage.steps, math.ceil(self.options.warmup * stage.steps)))

    def backward(self, step: int, batch: StageBatch) -> StepLosses:
        """Backpropagate the step's loss; return its stage's losses by name, and their weighted sum."""
        losses: Losses = getattr(self, f"{batch.stage.name}_losses")(batch)
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
        total.backward()
        return {"loss": total.item()} | {name: loss.item() for name, (_, loss) in losses.items()}

    def _stage(self, step: int) -> tuple[Stage, int]:
        """Return the stage of a 0-based step and the step's number in it; past the end (last stage, 0)."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        return self.stages[-1], 0

    def batch(self, step: int) -> StageBatch:
        """Draw what a step sees."""
        stage, number = self._stage(step)
        if stage.name == "referring":
            return StageBatch(stage, number, self.referring.draw(number), Draw((), (), ()), None)
        draw = (self.word_sampler if stage.name == "word" else self.sampler).draw(number)
        return StageBatch(stage, number, [], draw, None if stage.name == "reading" else self._pixels(draw))

    def _pixels(self, draw: Draw) -> NDArray[np.uint8]:
        rgb = self.images.stack(draw.views)
        return np.stack([image[:, ::-1] if mirror else image for image, mirror in zip(rgb, draw.mirrored, strict=True)])

    def referring_losses(self, batch: StageBatch) -> Losses:
        """Compute stage 1's losses: matching descriptions to objects, and describing objects."""
        described = batch.choices[: -(-len(batch.choices) // DESCRIBED)]
        return {
            "referring": (1.0, self.referring.loss(batch.choices, self.pointing.head, self.device)),
            "describing": (DESCRIBING_WEIGHT, self.referring.describing_loss(described, self.device)),
        }

    def reading_losses(self, batch: StageBatch) -> Losses:
        """Compute stage 2's losses: answers behind true words, and plain language."""
        true = self.words.true_tokens(self._targets(batch.draw), self.device)
        answers, pointing = self.answer_loss(batch.draw, true, batch.number)
        return {"reading": (1.0, answers)} | pointing | self.language_losses(batch.number)

    def word_losses(self, batch: StageBatch) -> Losses:
        """Compute stage 3's loss: visual tokens must name what their cells show."""
        return {"words": (1.0, self.words.loss(self.visual(batch), self._targets(batch.draw)))}

    def answer_losses(self, batch: StageBatch) -> Losses:
        """Compute stage 4's losses: answers about real views, plain language, and the words with a small weight."""
        visual = self.visual(batch)
        answers, pointing = self.answer_loss(batch.draw, visual, batch.number)
        losses = {"answers": (1.0, answers)} | pointing | self.language_losses(batch.number)
        if self.words and self.options.word_weight:
            losses["words"] = (self.options.word_weight, self.words.loss(visual, self._targets(batch.draw)))
        return losses

    def _targets(self, draw: Draw) -> torch.Tensor:
        return self.words.targets(draw.views, draw.mirrored)

    def visual(self, batch: StageBatch) -> torch.Tensor:
        """Return visual tokens (n,N,C) of the drawn views, each a scene of one view."""
        assert batch.rgb is not None
        pixels = self.loaded.preprocess(batch.rgb).to(self.device)[:, None]
        return self.loaded.encode_views(pixels, *batch.rgb.shape[1:3])

    def answer_loss(self, draw: Draw, visual: torch.Tensor, step: int) -> tuple[torch.Tensor, Losses]:
        """Return the mean over questions of their answer tokens' mean cross-entropy, and the pointing questions' loss."""
        loaded, device = self.loaded, self.device
        prefix = loaded.prefix(1, *loaded.image_size)
        head = prefix_embeds(loaded, prefix, visual)
        pointed = self.pointing.draw(draw, step)
        answered = [[self._question(q, a) for q, a in asked] for asked in draw.questions]
        both = [[*own, *(p.question for p in more)] for own, more in zip(answered, pointed, strict=True)]
        text = pack(both).to(device)
        hidden = loaded.language(
            torch.cat([head, loaded.embed(text.ids)], dim=1),
            block_positions(torch.from_numpy(prefix.positions).to(device), prefix.next_position, text.offset),
            block_mask(head.shape[1], text.block),
        )[-1]
        after = hidden[:, head.shape[1] :].flatten(0, 1)
        losses = cross_entropy(loaded.logits(after[text.target_rows]).float(), text.target_ids, reduction="none")
        answers = mean_per_question(losses, text.target_question, len(text.scene)).sum() / sum(map(len, answered))
        if not len(text.ground_rows):
            return answers, {}
        states = hidden[:, torch.from_numpy(prefix.visual_index).to(device)]
        return answers, {"pointing": (1.0, self.pointing.loss(pointed, visual, states, after[text.ground_rows]))}

    def language_losses(self, step: int) -> Losses:
        """Compute mean cross-entropy per token of some sentences without any view."""
        count = min(self.options.texts_per_step, len(self._sentences))
        if not count:
            return {}
        random = np.random.default_rng(seed_for("sentences", self.options.seed, step))
        chosen = [self._sentences[int(i)] for i in random.integers(len(self._sentences), size=count)]
        length = max(len(ids) for ids in chosen)
        rows = torch.zeros(count, length, dtype=torch.long)
        targets = torch.full((count, length), -100)
        for row, target, ids in zip(rows, targets, chosen, strict=True):
            row[: len(ids)] = torch.tensor(ids)
            target[: len(ids)] = torch.tensor(ids)
        rows, targets = rows.to(self.device), targets.to(self.device)
        axes = len(self.loaded.prefix(1, *self.loaded.image_size).positions)
        positions = torch.arange(length, device=rows.device).expand(axes, count, length)
        mask = causal_mask(length, rows.device).expand(count, -1, -1, -1)
        hidden = self.loaded.language(self.loaded.embed(rows), positions, mask)[-1][:, :-1]
        kept = targets[:, 1:] >= 0
        loss = cross_entropy(self.loaded.logits(hidden[kept]).float(), targets[:, 1:][kept])
        return {"language": (LANGUAGE_WEIGHT, loss)}

    def _question(self, question: ViewQuestion, answer: str) -> Question:
        key = (prompt(question), answer)
        if key not in self._questions:
            asked, told = self.loaded.question_ids(key[0]), self.loaded.answer_ids(answer)
            self._questions[key] = make_question(asked, told, ground_id=-1, coord_id=-1)
        return self._questions[key]


def _stages(options: PretrainOptions, words: bool, referring: bool) -> list[Stage]:
    """Return the stages of a run; without annotated objects only the last one, with the vision tower at full rate."""
    if not words:
        return [Stage("answer", options.steps, options.learning_rate, options.learning_rate)]
    tower = options.learning_rate * (options.vision_rate if options.word_steps else 1.0)
    stages = [
        Stage("referring", options.referring_steps if referring else 0, options.referring_learning_rate, 0.0),
        Stage("reading", options.reading_steps, options.reading_learning_rate, 0.0),
        Stage("word", options.word_steps, options.word_learning_rate, options.word_learning_rate),
        Stage("answer", options.steps, options.learning_rate, tower),
    ]
    return [stage for stage in stages if stage.steps]


def _optimizer(loaded: LoadedTransformersModel, head: torch.nn.Module, options: PretrainOptions) -> torch.optim.AdamW:
    """Return AdamW over vision tower and the rest; weight decay on matrices only."""
    vision = {id(p) for p in loaded.vision_parameters()}
    parameters = [p for p in loaded.model.parameters() if p.requires_grad] + list(head.parameters())
    rest, tower = ([p for p in parameters if (id(p) in vision) == in_tower] for in_tower in (False, True))
    peak, decay = options.learning_rate, options.weight_decay
    groups = decay_groups("language", rest, peak, decay) + decay_groups("vision", tower, peak, decay)
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)
