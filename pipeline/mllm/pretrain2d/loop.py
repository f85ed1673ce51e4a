"""The 2D pretraining loop: packed questions of single views plus plain sentences, cross-entropy on answers only."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pipeline.alignment.losses import mean_per_question
from pipeline.errors import TrainingError
from pipeline.mllm.assemble import causal_mask, prefix_embeds
from pipeline.mllm.loaded import TransformersBackbone
from pipeline.mllm.member import PretrainOptions
from pipeline.mllm.pretrain2d.views import Draw, ViewImages, ViewQuestion, ViewSampler
from pipeline.progress import Progress
from pipeline.prompts import user_text
from pipeline.provenance import seed_for
from pipeline.scene import Sample
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.optimizer import schedule_factor
from pipeline.training.packing import Question, block_mask, block_positions, make_question, pack

GRADIENT_NORM = 1.0
LANGUAGE_WEIGHT = 0.25
"""Weight of the plain sentences' loss beside the questions'."""


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
        sentences: list[str],
        options: PretrainOptions,
        folder: Path,
        digest: str,
        device: str,
    ):
        self.loaded, self.sampler, self.images, self.options = loaded, sampler, images, options
        self.device = device
        self.checkpoints = Checkpoints(folder, digest)
        self.optimizer = _optimizer(loaded, options)
        self._sentences = [ids for text in sentences if (ids := loaded.answer_ids(text))]
        self._questions: dict[tuple[str, str], Question] = {}
        self.curve: list[dict[str, float]] = []

    def run(self) -> list[dict[str, float]]:
        """Train from the newest checkpoint or the start; the loss curve (about 50 points)."""
        options = self.options
        latest = self.checkpoints.latest()
        start = self.checkpoints.restore(latest, self.loaded.model, self.optimizer) if latest else 0
        self.curve = _read_curve(latest) if latest else []
        self.loaded.model.train()
        every = max(1, options.steps // 50)
        gathered: list[dict[str, float]] = []
        with Progress("pretrain", options.steps, "steps") as progress:
            progress.step(start)
            for step in range(start, options.steps):
                losses = self.step(step)
                gathered.append(losses)
                if (step + 1) % every == 0 or step + 1 == options.steps:
                    self.curve.append({"step": step + 1, **_means(gathered)})
                    gathered = []
                if (step + 1) % options.checkpoint_steps == 0 and step + 1 < options.steps:
                    self._checkpoint(step + 1)
                progress.step(1, f"loss {losses['answers']:.3f}")
        return self.curve

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; TrainingError when the loss is not finite."""
        options = self.options
        factor = schedule_factor(step, options.steps, options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * factor
        answers = self.answer_loss(self.sampler.draw(step))
        language = self.language_loss(step)
        total = answers if language is None else answers + LANGUAGE_WEIGHT * language
        if not torch.isfinite(total):
            raise TrainingError(f"2D pretraining lost: loss is {total.item()} at step {step + 1}", mend="lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.loaded.model.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        return {"answers": answers.item()} | ({} if language is None else {"language": language.item()})

    def answer_loss(self, draw: Draw) -> torch.Tensor:
        """Mean over questions of the mean cross-entropy of their answer tokens."""
        loaded, device = self.loaded, self.device
        rgb = self.images.stack(draw.views)
        rgb = np.stack([image[:, ::-1] if mirror else image for image, mirror in zip(rgb, draw.mirrored, strict=True)])
        height, width = rgb.shape[1:3]
        pixels = loaded.preprocess(rgb).to(device)[:, None]
        prefix = loaded.prefix(1, height, width)
        head = prefix_embeds(loaded, prefix, loaded.encode_views(pixels, height, width))
        text = pack([[self._question(q, a) for q, a in asked] for asked in draw.questions]).to(device)
        hidden = loaded.language(
            torch.cat([head, loaded.embed(text.ids)], dim=1),
            block_positions(torch.from_numpy(prefix.positions).to(device), prefix.next_position, text.offset),
            block_mask(head.shape[1], text.block),
        )[-1][:, head.shape[1] :]
        logits = loaded.logits(hidden.flatten(0, 1)[text.target_rows]).float()
        losses = cross_entropy(logits, text.target_ids, reduction="none")
        return mean_per_question(losses, text.target_question, len(text.scene)).mean()

    def language_loss(self, step: int) -> torch.Tensor | None:
        """Mean cross-entropy per token of some sentences without any view; None when none are asked for."""
        count = min(self.options.texts_per_step, len(self._sentences))
        if not count:
            return None
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
        return cross_entropy(self.loaded.logits(hidden[kept]).float(), targets[:, 1:][kept])

    def _question(self, question: ViewQuestion, answer: str) -> Question:
        key = (prompt(question), answer)
        if key not in self._questions:
            asked, told = self.loaded.question_ids(key[0]), self.loaded.answer_ids(answer)
            self._questions[key] = make_question(asked, told, ground_id=-1, coord_id=-1)
        return self._questions[key]

    def _checkpoint(self, step: int) -> None:
        self.checkpoints.save(step, self.loaded.model, self.optimizer)
        latest = self.checkpoints.latest()
        if latest is not None:
            (latest / "curve.json").write_text(json.dumps(self.curve), encoding="utf-8")


def _optimizer(loaded: TransformersBackbone, options: PretrainOptions) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    parameters = [p for p in loaded.model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)


def _read_curve(checkpoint: Path) -> list[dict[str, float]]:
    path = checkpoint / "curve.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _means(losses: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(float(np.mean([entry[key] for entry in losses])), 5) for key in losses[0]}


def seconds_per_step(trainer: Pretrainer, steps: int = 3) -> float:
    """Wall seconds of a step, measured on the next ``steps`` steps (for the bench of a person who adapts sizes)."""
    trainer.step(0)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        trainer.step(step)
    return (time.perf_counter() - start) / steps
