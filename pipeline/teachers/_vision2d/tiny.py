"""Tiny untrained networks of the real classes: for tests and trial runs of a study, never for results."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from pipeline.teachers._vision2d.checkpoint import Vision
from pipeline.teachers._vision2d.layouts import LAYOUTS


def tiny_vision(model_type: str) -> Vision:
    """Return the configuration of the size ``tiny_untrained`` of an architecture."""
    layout = LAYOUTS[model_type]
    config = getattr(transformers, layout.config_class)(**layout.tiny, **layout.changed)
    return Vision(layout, config, layout.pixels, layout.resampling)


def tiny_network(model_type: str, seed: int = 0) -> nn.Module:
    """Build a network with random weights from ``seed`` by the class's initialisation; leave the global generator alone."""
    vision = tiny_vision(model_type)
    model_class: Any = getattr(transformers, vision.layout.model_class)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = model_class._from_config(vision.config, attn_implementation="sdpa", dtype=torch.float32)
    return network
