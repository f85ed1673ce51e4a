"""The fine-tuning loop: steps, metrics, checkpoints. Resuming equals an uninterrupted run bit for bit on CPU."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import TrainingError
from pipeline.progress import Progress
from pipeline.provenance import write_atomic
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.data import TrainingData, TrainingGroup, prefetch
from pipeline.training.model import SpatialMLLM
from pipeline.training.optimizer import make_optimizer, schedule_factor, set_rates

METRICS = "metrics.jsonl"
FINAL_SHARE = 0.1
"""Last share of the steps over which the manifest's final losses are means."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Figures of one step: losses are means over questions (per benchmark too); ``alignment`` None without a teacher."""

    loss: float
    alignment: float | None
    benchmarks: dict[str, float]
    grad_norm: float
    tokens: int


class Trainer:
    """Runs ``steps`` optimiser steps of ``model`` on ``data`` and keeps its files in ``folder``."""

    def __init__(self, model: SpatialMLLM, data: TrainingData, folder: Path, *, steps: int, digest: str, device: str):
        self.model, self.data, self.folder = model, data, folder
        self.recipe, self.steps, self.device = model.recipe, steps, device
        self.optimizer = make_optimizer(model, self.recipe)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.checkpoints = Checkpoints(folder, digest)
        self.metrics = self.checkpoints.folder / METRICS
        if self.recipe.gradient_checkpointing:
            model.backbone.activation_checkpointing_enable({"use_reentrant": False})

    def run(self) -> dict[str, float]:
        """Train from the latest checkpoint, or from the start; means of the losses over the last tenth of the steps."""
        self.model.train()
        done = self._resume()
        with Progress("train", self.steps, "steps") as progress, self.metrics.open("a", encoding="utf-8") as log:
            progress.step(done)
            for step, groups in prefetch(self.data, range(done, self.steps)):
                start = time.perf_counter()
                result = self.step(step, groups)
                self._write(log, step, result, time.perf_counter() - start)
                if (step + 1) % self.recipe.checkpoint_every_steps == 0 and step + 1 < self.steps:
                    log.flush()
                    self.checkpoints.save(step + 1, self.model, self.optimizer)
                progress.step(note=f"loss {result.loss:.3f}")
        return self._final()

    def keep_metrics(self) -> None:
        """Put the metrics of a finished training beside its model; until then they lie with its checkpoints."""
        self.metrics.replace(self.folder / METRICS)

    def _resume(self) -> int:
        """Number of finished steps; metrics of steps that will be repeated are dropped."""
        latest = self.checkpoints.latest()
        if latest is None:
            self.checkpoints.remove()
            done = 0
        else:
            done = self.checkpoints.restore(latest, self.model, self.optimizer)
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in self._lines() if line["step"] <= done]
        write_atomic(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        return done

    def step(self, step: int, groups: Sequence[TrainingGroup]) -> StepResult:
        """One optimiser step. TrainingError when loss or gradients are not finite."""
        factor = schedule_factor(step, self.steps, self.recipe.warmup_ratio)
        set_rates(self.optimizer, factor)
        self.optimizer.zero_grad(set_to_none=True)
        questions = sum(len(group.sample_ids) for group in groups)
        scenes = sum(len(group.scenes) for group in groups)
        losses = []
        for group in groups:
            found = self.model(group.to(self.device), questions=questions, scenes=scenes)
            found.total.backward()
            losses.append(found)
        per_question = torch.cat([found.questions for found in losses]).tolist()
        aligned = [found.alignment.item() for found in losses if found.alignment is not None]
        names = [name for group in groups for name in group.benchmark]
        alignment = sum(aligned) if aligned else None
        total = sum(per_question) / questions + self.recipe.weight * (alignment or 0.0)
        self._refuse_nan(step, total, "the loss", groups, per_question)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.grad_clip).item()
        self._refuse_nan(step, norm, "the gradient", groups, per_question)
        self.optimizer.step()
        tokens = sum(int((group.text.block >= 0).sum()) for group in groups)
        return StepResult(total, alignment, _means(names, per_question), norm, tokens)

    def _refuse_nan(
        self, step: int, value: float, what: str, groups: Sequence[TrainingGroup], per_question: list[float]
    ) -> None:
        if math.isfinite(value):
            return
        ids = [name for group in groups for name in group.sample_ids]
        bad = [name for name, loss in zip(ids, per_question, strict=True) if not math.isfinite(loss)] or ids
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise TrainingError(
            f"{what} is not finite ({value}) in step {step + 1} of {self.steps}",
            where=f"samples {', '.join(bad[:8])}{more}",
            fix="lower the learning rates of the recipe, or look at these samples' scenes and features",
        )

    def _write(self, log: Any, step: int, result: StepResult, seconds: float) -> None:
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        line: dict[str, Any] = {"step": step + 1, "loss": result.loss, **result.benchmarks}
        if result.alignment is not None:
            line["alignment"] = result.alignment
        line |= {"grad_norm": result.grad_norm, "learning_rate": rates, "step_s": round(seconds, 4)}
        line["question_tokens_per_s"] = round(result.tokens / seconds, 1)
        log.write(json.dumps(line) + "\n")

    def _lines(self) -> list[dict[str, Any]]:
        if not self.metrics.is_file():
            return []
        lines = []
        for text in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # the line that a killed run was writing
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
        return lines

    def _final(self) -> dict[str, float]:
        """Means over the last steps, rounded: they go into the deterministic manifest."""
        lines = self._lines()
        last = lines[-max(1, int(FINAL_SHARE * len(lines))) :]
        skipped = {"step", "learning_rate", "step_s", "question_tokens_per_s", "grad_norm"}
        values: dict[str, list[float]] = {}
        for line in last:
            for name, value in line.items():
                if name not in skipped:
                    values.setdefault(name, []).append(value)
        return {name: round(sum(found) / len(found), 4) for name, found in sorted(values.items())}


def _means(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Mean value per name, names sorted."""
    found: dict[str, list[float]] = {}
    for name, value in zip(names, values, strict=True):
        found.setdefault(name, []).append(value)
    return {name: sum(found[name]) / len(found[name]) for name in sorted(found)}
