"""Parameter groups with a peak rate each; warm-up and cosine decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def group(name: str, parameters: Iterable[nn.Parameter], peak: float, **options: Any) -> dict[str, Any]:
    """Return an optimizer's group of those parameters that are trained. ``options``: such as ``weight_decay``."""
    return {"name": name, "params": [p for p in parameters if p.requires_grad], "lr": peak, "peak": peak, **options}


def decay_groups(name: str, parameters: Iterable[nn.Parameter], peak: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups of one name: matrices, which decay, and vectors (biases, norms), which do not."""
    found = list(parameters)
    matrices, vectors = ([p for p in found if (p.ndim > 1) == decays] for decays in (True, False))
    return [group(name, matrices, peak, weight_decay=weight_decay), group(name, vectors, peak, weight_decay=0.0)]


def schedule_factor(step: int, total: int, warmup: int) -> float:
    """Return the share of the peak rate at 0-based ``step``: linear for ``warmup`` steps, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
