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

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pipeline.alignment.losses import mean_per_question
from pipeline.errors import TrainingError
from pipeline.mllm.assemble import causal_mask, prefix_embeds
from pipeline.mllm.loaded import TransformersBackbone
from pipeline.mllm.member import PretrainOptions
from pipeline.mllm.pretrain2d.cells import CellWords
from pipeline.mllm.pretrain2d.pointing import Pointing
from pipeline.mllm.pretrain2d.referring import Referring
from pipeline.mllm.pretrain2d.views import Draw, ViewImages, ViewQuestion, ViewSampler
from pipeline.progress import Progress
from pipeline.prompts import user_text
from pipeline.provenance import seed_for
from pipeline.scene import Sample
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.optimizer import schedule_factor
from pipeline.training.packing import Question, block_mask, block_positions, make_question, pack

Losses = dict[str, tuple[float, torch.Tensor]]
"""Name -> (weight, loss)."""
GRADIENT_NORM = 1.0
DESCRIBED = 2
"""One in this many descriptions of a step is also written."""
DESCRIBING_WEIGHT = 0.5
"""Weight of writing descriptions beside understanding them."""
LANGUAGE_WEIGHT = 0.25
"""Weight of the plain sentences' loss beside the questions'."""


@dataclass(frozen=True, slots=True)
class Stage:
    """``steps`` of a stage; peak learning rates of the vision tower and of everything else."""

    name: Literal["referring", "reading", "word", "answer"]
    steps: int
    rate: float
    vision_rate: float


def prompt(question: ViewQuestion) -> str:
    """The user's text: the question-answering template of the benchmarks, captions as they stand."""
    if question.kind == "caption":
        return question.question
    return user_text(Sample("", "", "", "qa", text=question.question))


class Pretrainer:
    """Trains ``loaded`` on drawn views and sentences. ``folder`` holds checkpoints while it runs."""

    def __init__(
        self,
        loaded: TransformersBackbone,
        sampler: ViewSampler,
        images: ViewImages,
        words: CellWords,
        referring: Referring,
        sentences: list[str],
        options: PretrainOptions,
        folder: Path,
        digest: str,
        device: str,
    ):
        self.loaded, self.sampler, self.images, self.words, self.options = loaded, sampler, images, words, options
        self.device, self.referring = device, referring
        self.checkpoints = Checkpoints(folder, digest)
        self.pointing = Pointing(words, loaded, per_view=options.pointing_per_view if words else 0, seed=options.seed)
        self.pointing.head.to(device)
        self.trained = torch.nn.ModuleDict({"model": loaded.model, "pointing": self.pointing.head})
        self.optimizer = _optimizer(loaded, self.pointing.head, options)
        self._sentences = [ids for text in sentences if (ids := loaded.answer_ids(text))]
        self._questions: dict[tuple[str, str], Question] = {}
        self.word_sampler = sampler.with_views_per_step(options.word_views_per_step)
        self.curve: list[dict[str, float]] = []
        self.stages = _stages(options, bool(words), bool(referring))
        self.steps = sum(stage.steps for stage in self.stages)

    def run(self) -> list[dict[str, float]]:
        """Train from the newest checkpoint or the start; the loss curve (about 50 points)."""
        options = self.options
        latest = self.checkpoints.latest()
        start = self.checkpoints.restore(latest, self.trained, self.optimizer) if latest else 0
        self.curve = _read_curve(latest) if latest else []
        self.loaded.model.train()
        every = max(1, self.steps // 50)
        gathered: list[dict[str, float]] = []
        with Progress("pretrain", self.steps, "steps") as progress:
            progress.step(start)
            for step in range(start, self.steps):
                losses = self.step(step)
                gathered.append(losses)
                if (step + 1) % every == 0 or self._stage(step + 1)[1] == 0:
                    self.curve.append({"step": step + 1, **_means(gathered)})
                    gathered = []
                if (step + 1) % options.checkpoint_steps == 0 and step + 1 < self.steps:
                    self._checkpoint(step + 1)
                progress.step(1, ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
        return self.curve

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step, numbered over all stages; TrainingError when the loss is not finite."""
        stage, number = self._stage(step)
        factor = schedule_factor(number, stage.steps, self.options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * (stage.vision_rate if group["vision"] else stage.rate)
        losses = getattr(self, f"{stage.name}_losses")(number)
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
        if not torch.isfinite(total):
            raise TrainingError(f"2D pretraining lost: loss is {total.item()} at step {step + 1}", fix="lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        return {name: loss.item() for name, (_, loss) in losses.items()}

    def _stage(self, step: int) -> tuple[Stage, int]:
        """The stage of a 0-based step and the step's number in it; past the end (last stage, 0)."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        return self.stages[-1], 0

    def referring_losses(self, step: int) -> Losses:
        """Stage 1: what descriptions are about, and how things are described."""
        choices = self.referring.draw(step)
        described = choices[: -(-len(choices) // DESCRIBED)]
        return {
            "referring": (1.0, self.referring.loss(choices, self.pointing.head, self.device)),
            "describing": (DESCRIBING_WEIGHT, self.referring.describing_loss(described, self.device)),
        }

    def reading_losses(self, step: int) -> Losses:
        """Stage 2: answers behind true words, and plain language."""
        draw = self.sampler.draw(step)
        true = self.words.true_tokens(self.words.targets(draw.views, draw.mirrored), self.device)
        answers, pointing = self.answer_loss(draw, true, step)
        return {"reading": (1.0, answers)} | pointing | self.language_losses(step)

    def word_losses(self, step: int) -> Losses:
        """Stage 3: how well visual tokens name what their cells show."""
        draw = self.word_sampler.draw(step)
        return {"words": (1.0, self.words.loss(self.visual(draw), self.words.targets(draw.views, draw.mirrored)))}

    def answer_losses(self, step: int) -> Losses:
        """Stage 4: answers about real views, plain language, and the words with a small weight."""
        draw = self.sampler.draw(step)
        visual = self.visual(draw)
        answers, pointing = self.answer_loss(draw, visual, step)
        losses = {"answers": (1.0, answers)} | pointing | self.language_losses(step)
        if self.words and self.options.word_weight:
            named = self.words.loss(visual, self.words.targets(draw.views, draw.mirrored))
            losses["words"] = (self.options.word_weight, named)
        return losses

    def visual(self, draw: Draw) -> torch.Tensor:
        """Visual tokens (n,N,C) of the drawn views, each a scene of one view."""
        rgb = self.images.stack(draw.views)
        rgb = np.stack([image[:, ::-1] if mirror else image for image, mirror in zip(rgb, draw.mirrored, strict=True)])
        pixels = self.loaded.preprocess(rgb).to(self.device)[:, None]
        return self.loaded.encode_views(pixels, *rgb.shape[1:3])

    def answer_loss(self, draw: Draw, visual: torch.Tensor, step: int) -> tuple[torch.Tensor, Losses]:
        """Mean over questions of the mean cross-entropy of their answer tokens, and the loss of the pointing questions."""
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
        """Mean cross-entropy per token of some sentences without any view."""
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

    def _checkpoint(self, step: int) -> None:
        self.checkpoints.save(step, self.trained, self.optimizer, {"curve.json": self.curve})


def _stages(options: PretrainOptions, words: bool, referring: bool) -> list[Stage]:
    """The stages of a run; without annotated objects only the last one, with the vision tower at full rate."""
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


def _optimizer(loaded: TransformersBackbone, head: torch.nn.Module, options: PretrainOptions) -> torch.optim.AdamW:
    """AdamW over vision tower and the rest; weight decay on matrices only."""
    vision = {id(p) for p in loaded.vision_parameters()}
    parameters = [p for p in loaded.model.parameters() if p.requires_grad] + list(head.parameters())
    groups: list[dict[str, Any]] = []
    for tower in (False, True):
        own = [p for p in parameters if (id(p) in vision) == tower]
        groups.append({"params": [p for p in own if p.ndim > 1], "weight_decay": options.weight_decay, "vision": tower})
        groups.append({"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0, "vision": tower})
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)


def _read_curve(checkpoint: Path) -> list[dict[str, float]]:
    path = checkpoint / "curve.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _means(losses: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.mean([entry[key] for entry in losses if key in entry])), 5) for key in losses[0]}
