"""A small resumable training loop for networks that are made inside the workflow.

Every step draws its batch from its own number alone, so a killed run goes on from its last checkpoint as if it never stopped.
"""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.features.memory import out_of_memory
from pipeline.nets.weights import save_checkpoint
from pipeline.progress import Progress

CHECKPOINT_EVERY = 100
CLIP_NORM = 1.0
WEIGHT_DECAY = 0.05
Item = TypeVar("Item")


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: linear warm-up over 5 % of the steps, then a cosine to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _ahead(make: Callable[[int], Item], start: int, stop: int) -> Iterator[tuple[int, Item]]:
    """(step, batch) in order, the next batch being made while the current one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, start)
        for step in range(start, stop):
            current = waiting.result()
            if step + 1 < stop:
                waiting = pool.submit(make, step + 1)
            yield step, current


def _optimiser(module: nn.Module, peak: float) -> torch.optim.AdamW:
    """AdamW; only matrices decay."""
    decay = [p for p in module.parameters() if p.ndim > 1]
    plain = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))


class Stages:
    """Stages of training ``model``, one after the other, behind one checkpoint file.

    ``key`` says what the checkpoint must have been made for (data, sizes, plan); another one is ignored.
    """

    def __init__(self, checkpoint: Path, key: str, model: nn.Module, device: str):
        self.checkpoint, self.key, self.model, self.device = checkpoint, key, model, device
        self._saved = self._read()
        self._finished: dict[str, float] = dict(self._saved.get("finished", {}))
        if self._saved:
            model.load_state_dict(self._saved["model"])

    def _read(self) -> dict[str, Any]:
        try:
            with zipfile.ZipFile(
                self.checkpoint
            ) as archive:  # torch.load does not compare the checksums that torch.save writes
                whole = archive.testzip() is None
            content = torch.load(self.checkpoint, map_location=self.device, weights_only=True) if whole else None
        except FileNotFoundError:
            return {}
        except Exception as error:  # whatever a damaged archive raises: it costs the work behind it, never the run
            if out_of_memory(error):
                raise
            content = None
        if content is None:
            print(f"warning: checkpoint {self.checkpoint} is damaged and not used", file=sys.stderr)
        return content if isinstance(content, dict) and content.get("key") == self.key else {}

    def run(
        self,
        name: str,
        module: nn.Module,
        *,
        steps: int,
        peak: float,
        make: Callable[[int], Item],
        loss_of: Callable[[Item, int], Tensor],
    ) -> float:
        """Train ``module`` (the model, or what wraps parts of it) for ``steps``; the mean loss of the last tenth.

        ``make(step)`` gives a batch and runs ahead in a thread; ``loss_of(batch, step)`` its loss.
        """
        if name in self._finished:
            return self._finished[name]
        optimiser = _optimiser(module, peak)
        start, losses = 0, []
        if self._saved.get("stage") == name:
            module.load_state_dict(self._saved["module"])
            optimiser.load_state_dict(self._saved["optimiser"])
            start, losses = self._saved["step"], list(self._saved["losses"])
        self._saved = {}
        module.train()
        with Progress(f"pretrain {name}", steps, "steps") as progress:
            progress.step(start)
            for step, batch in _ahead(make, start, steps):
                losses.append(self._step(module, optimiser, rate(step, steps, peak), loss_of(batch, step)))
                progress.step(note=f"loss {sum(losses[-20:]) / len(losses[-20:]):.3f}")
                if (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < steps:
                    state = {"stage": name, "step": step + 1, "losses": losses}
                    self._save(state | {"module": module.state_dict(), "optimiser": optimiser.state_dict()})
        tail = losses[-max(1, steps // 10) :]
        self._finished[name] = sum(tail) / max(1, len(tail))
        self._save({"stage": ""})
        return self._finished[name]

    @staticmethod
    def _step(module: nn.Module, optimiser: torch.optim.Optimizer, learning_rate: float, loss: Tensor) -> float:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimiser.step()
        return float(loss.detach())

    def _save(self, state: dict[str, Any]) -> None:
        content = {"key": self.key, "finished": self._finished, "model": self.model.state_dict()}
        save_checkpoint(self.checkpoint, content | state)
