"""A checkpoint folder in the transformers layout, looked at without torch: its JSON files and which weight files it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConfigError


def layer_count(folder: Path, part: Literal["text_config", "vision_config"]) -> int | None:
    """Layers of a part of the model by the folder's config.json; None where it does not say them (or is not there)."""
    try:
        content: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inner = content.get(part)
        counts = [where.get("num_hidden_layers") for where in (inner, content) if isinstance(where, dict)]
    except (OSError, ValueError, AttributeError):
        return None
    return next((count for count in counts if isinstance(count, int)), None)


def checked_layers(layers: Sequence[int], depth: int) -> list[int]:
    """``layers`` counted from the front. ConfigError for one that ``depth`` blocks do not have or that is named twice."""
    for layer in layers:
        if not -depth <= layer < depth:
            raise ConfigError(f"the network has no block {layer}", allowed=f"{-depth} to {depth - 1}")
    counted = [layer % depth for layer in layers]
    if len(set(counted)) < len(counted):
        raise ConfigError(f"layers {list(layers)} name a block twice ({depth} blocks, so {depth - 1} is -1)")
    return counted
