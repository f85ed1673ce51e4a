"""Fine-tuning: its parameter groups, and the loss of a step over groups of scenes, gradients added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.optim.checkpoint import Checkpoints
from pipeline.optim.loop import METRICS, Loop, StepLosses, means
from pipeline.optim.optimizer import group, schedule_factor, set_rates
from pipeline.study.recipe import Recipe
from pipeline.training.data import TrainingData, TrainingGroup
from pipeline.training.model import SpatialMLLM

NAMED = 8
"""Most samples that a message names."""


class Trainer(Loop[Sequence[TrainingGroup]]):
    """Runs ``steps`` optimizer steps of ``model`` on ``data`` and keeps its files in ``folder``."""

    label = "train"
    not_finite_fix = "lower the learning rates of the recipe, or look at these samples' scenes and features"
    memory_fix = "fewer scenes at once (recipe: scenes_per_pass), gradient_checkpointing: true, or precision: bfloat16"

    def __init__(self, model: SpatialMLLM, data: TrainingData, folder: Path, *, steps: int, digest: str, device: str):
        self.model, self.data, self.folder, self.device = model, data, folder, device
        self.recipe = recipe = model.recipe
        super().__init__(
            model,
            make_optimizer(model, recipe),
            Checkpoints(folder / "checkpoints", digest),
            steps=steps,
            save_every=recipe.checkpoint_every_steps,
            clip=recipe.grad_clip,
        )
        self.parameters = [p for own in self.optimizer.param_groups for p in own["params"]]
        self._per_question: list[float] = []
        if recipe.gradient_checkpointing:
            model.backbone.activation_checkpointing_enable({"use_reentrant": False})

    def keep_metrics(self) -> None:
        """Put the metrics of a finished training beside its model; until then they lie with its checkpoints."""
        self.metrics.replace(self.folder / METRICS)

    def batch(self, step: int) -> list[TrainingGroup]:
        """Make the groups of a step."""
        return self.data.batch(step)

    def set_rates(self, step: int) -> None:
        """Warm up over the recipe's share of the steps, then follow half a cosine."""
        set_rates(self.optimizer, schedule_factor(step, self.steps, math.ceil(self.recipe.warmup_ratio * self.steps)))

    def backward(self, step: int, batch: Sequence[TrainingGroup]) -> StepLosses:
        """Backpropagate a step's losses: means over questions, also by benchmark; ``alignment`` where there is a teacher."""
        questions = sum(len(some.sample_ids) for some in batch)
        scenes = sum(len(some.scenes) for some in batch)
        losses = []
        for some in batch:
            losses.append(self.model(some.to(self.device), questions=questions, scenes=scenes))
            losses[-1].total.backward()
        self._per_question = torch.cat([found.questions for found in losses]).tolist()
        aligned = [found.alignment.item() for found in losses if found.alignment is not None]
        total = sum(self._per_question) / questions + self.recipe.weight * (sum(aligned) if aligned else 0.0)
        names = [name for some in batch for name in some.benchmark]
        by_name = means([{name: loss} for name, loss in zip(names, self._per_question, strict=True)])
        return {"loss": total, **dict(sorted(by_name.items())), **({"alignment": sum(aligned)} if aligned else {})}

    def suspects(self, batch: Sequence[TrainingGroup]) -> str:
        """Name the samples whose own loss is not finite, all where none is."""
        ids = [name for some in batch for name in some.sample_ids]
        bad = [name for name, loss in zip(ids, self._per_question, strict=True) if not math.isfinite(loss)] or ids
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        return f"samples {', '.join(bad[:NAMED])}{more}"

    def speed(self, batch: Sequence[TrainingGroup], seconds: float) -> dict[str, float]:
        """Return tokens of questions and answers per second, without padding."""
        tokens = sum(int((some.text.block >= 0).sum()) for some in batch)
        return {"question_tokens_per_s": round(tokens / seconds, 1)}


def make_optimizer(model: SpatialMLLM, recipe: Recipe) -> torch.optim.AdamW:
    """Make an optimizer with groups ``llm`` (with the visual projector), ``vision``, ``heads``, their peak rates in ``peak``.

    A vision rate of 0 freezes the tower: its parameters take no gradients and are in no group.
    """
    vision = {id(p): p for p in model.loaded.vision_parameters()}
    frozen = recipe.vision_learning_rate == 0
    for parameter in vision.values():
        parameter.requires_grad_(not frozen)
    own = {id(p) for p in model.backbone.parameters()}
    groups = [
        group("llm", (p for p in model.backbone.parameters() if id(p) not in vision), recipe.learning_rate),
        group("heads", (p for p in model.parameters() if id(p) not in own), recipe.head_learning_rate),
    ]
    if not frozen:
        groups.append(group("vision", vision.values(), recipe.vision_learning_rate))
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
