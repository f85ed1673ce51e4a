"""The training loop: steps, losses, checkpoints. Fine-tuning and both pretrainings are subclasses.

A step depends on its number and on the weights before it, on nothing else. So a run that was stopped goes on from its last
checkpoint as if it had never stopped: the same weights and losses, bit for bit on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from pipeline.core.errors import TrainingError
from pipeline.core.progress import Progress
from pipeline.core.provenance import write_atomic
from pipeline.core.runtime import enough_memory
from pipeline.optim.checkpoint import Checkpoints
from pipeline.optim.prefetch import prefetch

METRICS = "metrics.jsonl"
NOTE_STEPS = 20
"""Last steps over which the loss that is shown meanwhile is a mean."""
Batch = TypeVar("Batch")
StepLosses = dict[str, float]
"""Losses of one step by name; the one whose gradient is followed is ``loss``."""


class Loop(ABC, Generic[Batch]):
    """Trains ``module`` for ``steps`` steps, numbered from 0, and keeps a checkpoint and metrics.jsonl while it runs.

    A checkpoint is written every ``save_every`` steps and after the last one, so that nothing that follows (scores, saving)
    costs the training when it fails.
    """

    label: ClassVar[str]
    """Names the training in its progress."""
    not_finite_fix: ClassVar[str]
    memory_fix: ClassVar[str]
    """What a user can change when a loss is not finite, and when memory runs out."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints,
        *,
        steps: int,
        save_every: int,
        clip: float = 1.0,
    ):
        self.module, self.optimizer, self.checkpoints = module, optimizer, checkpoints
        self.steps, self.save_every, self.clip = steps, save_every, clip
        self.parameters = list(module.parameters())
        """Those whose gradients are clipped to a norm of ``clip`` together."""
        self.metrics = checkpoints.folder / METRICS
        self.losses: list[StepLosses] = []
        """Of every finished step, also those before a resumption."""

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """Make what a step sees. Called ahead in a thread."""

    @abstractmethod
    def backward(self, step: int, batch: Batch) -> StepLosses:
        """Compute a step's losses and gradients."""

    @abstractmethod
    def set_rates(self, step: int) -> None:
        """Set the optimizer's learning rates for a step."""

    def suspects(self, batch: Batch) -> str | None:
        """Name what of a batch may have made its loss or gradient not finite; called right after ``backward``."""
        return None

    def speed(self, batch: Batch, seconds: float) -> dict[str, float]:
        """Return more figures for a step's line in metrics.jsonl."""
        return {}

    def run(self) -> list[StepLosses]:
        """Train from the newest checkpoint, or from the start, and return the losses of all steps.

        TrainingError: a loss or gradient is not finite. EnvironmentFaultError: memory ran out.
        """
        self.module.train()
        done = self.resume()
        with (
            enough_memory("a step was trained", f"{self.memory_fix}; or more memory. The last checkpoint is kept."),
            Progress(self.label, self.steps, "steps") as progress,
            self.metrics.open("a", encoding="utf-8") as log,
        ):
            progress.step(done)
            for step, batch in prefetch(self.batch, range(done, self.steps)):
                start = time.perf_counter()
                found, norm = self.step(step, batch)
                self.losses.append(found)
                log.write(json.dumps(self._line(batch, norm, time.perf_counter() - start)) + "\n")
                if (step + 1) % self.save_every == 0 or step + 1 == self.steps:
                    log.flush()
                    self.checkpoints.save(self.module, self.optimizer, self.losses)
                progress.step(note=f"loss {means(self.losses[-NOTE_STEPS:])['loss']:.3f}")
        return self.losses

    def resume(self) -> int:
        """Restore the newest checkpoint, drop the metrics of later steps, and return the number of finished steps."""
        self.losses = self.checkpoints.restore(self.module, self.optimizer)
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.is_file() else []
        write_atomic(self.metrics, b"".join(lines[: len(self.losses)]))
        return len(self.losses)

    def step(self, step: int, batch: Batch) -> tuple[StepLosses, float]:
        """Train one step; its losses and the norm of its gradient. TrainingError, with the weights as they were before."""
        self.set_rates(step)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.backward(step, batch)
        self._check(step, losses["loss"], "the loss", batch)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip).item()
        self._check(step, norm, "the gradient", batch)
        self.optimizer.step()
        return losses, norm

    def _check(self, step: int, value: float, what: str, batch: Batch) -> None:
        if not math.isfinite(value):
            said = f"{self.label}: {what} is not finite ({value}) in step {step + 1} of {self.steps}"
            raise TrainingError(said, where=self.suspects(batch), fix=self.not_finite_fix)

    def _line(self, batch: Batch, norm: float, seconds: float) -> dict[str, Any]:
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        line: dict[str, Any] = {"step": len(self.losses), **self.losses[-1], "grad_norm": norm, "learning_rate": rates}
        return line | {"step_s": round(seconds, 4)} | self.speed(batch, seconds)


def means(losses: Sequence[StepLosses]) -> StepLosses:
    """Return the mean of every loss over the steps that have it."""
    values: dict[str, list[float]] = {}
    for found in losses:
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def final_means(losses: Sequence[StepLosses]) -> StepLosses:
    """Return means over the last tenth of the steps, rounded to 4 digits: they go into deterministic manifests."""
    last = losses[-max(1, len(losses) // 10) :]
    return {name: round(value, 4) for name, value in sorted(means(last).items())}
