"""AdamW with three parameter groups, warm-up and cosine decay."""

from __future__ import annotations

import math

import torch

from pipeline.training.model import SpatialMLLM
from pipeline.training.recipe import Recipe


def make_optimizer(model: SpatialMLLM, recipe: Recipe) -> torch.optim.AdamW:
    """Groups ``llm`` (with the visual projector), ``vision`` and ``heads``, each with its peak rate in ``peak``.

    A vision rate of 0 freezes the tower: its parameters take no gradients and are in no group.
    """
    vision = {id(p): p for p in model.loaded.vision_parameters()}
    frozen = recipe.vision_learning_rate == 0
    for parameter in vision.values():
        parameter.requires_grad_(not frozen)
    own = {id(p) for p in model.backbone.parameters()}
    groups = [
        _group("llm", [p for p in model.backbone.parameters() if id(p) not in vision], recipe.learning_rate),
        _group("heads", [p for p in model.parameters() if id(p) not in own], recipe.head_learning_rate),
    ]
    if not frozen:
        groups.append(_group("vision", list(vision.values()), recipe.vision_learning_rate))
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def _group(name: str, parameters: list[torch.nn.Parameter], peak: float) -> dict[str, object]:
    return {"name": name, "params": [p for p in parameters if p.requires_grad], "lr": peak, "peak": peak}


def schedule_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Share of the peak rate at 0-based ``step``: linear over the first ceil(ratio * total) steps, then half a cosine to 0."""
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
