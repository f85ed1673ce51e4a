"""Depth, confidence and camera poses of an external model, where the function that reads its tokens gives them too.

Only a function can: where a package keeps its predictions, in which shape and axes, is known to nobody but who wrote it down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.nets.external.spec import ExternalSpec

MAPS = ("depth", "confidence")
KEYS = ("tokens", *MAPS, "pose")


def with_predictions(answer: Any, spec: ExternalSpec) -> tuple[Any, dict[str, Any]]:
    """(what tokens are read from, predictions by name) of what the tap gives. ConfigError for a name that is none.

    Predictions come from a tap function whose answer is a mapping with ``tokens``, and no ``output`` leads into it.
    """
    by_function = spec.tap is not None and ":" in spec.tap
    if not by_function or spec.output or not isinstance(answer, Mapping) or "tokens" not in answer:
        return answer, {}
    unknown = [key for key in answer if key not in KEYS]
    if unknown:
        raise ConfigError(
            f"the tap's mapping has an entry {unknown[0]!r}", where=spec.where("tap"), allowed=f"tokens, {', '.join(KEYS[1:])}"
        )
    return answer["tokens"], {key: answer[key] for key in KEYS[1:] if answer.get(key) is not None}


def as_stored(found: Mapping[str, Any], spec: ExternalSpec, views: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Predictions float32: maps (..., V, h, w) averaged to the grid (V,G,K), ``pose`` (V,4,4) as it was given.

    ConfigError for another shape, and for poses of views that are encoded separately: they have no common world.
    """
    stored = {}
    for name, value in found.items():
        if name == "pose" and spec.views == "separately":
            raise ConfigError(
                "the tap gives poses of views that are encoded separately",
                where=spec.where("views"),
                mend="views: together, or leave pose out",
            )
        shape = tuple(value.shape) if isinstance(value, Tensor) else None
        fits = shape is not None and len(shape) >= 3 and np.prod(shape[:-2], dtype=int) == views and 0 not in shape
        if not fits or (name == "pose" and shape is not None and shape[-2:] != (4, 4)):
            raise ConfigError(
                f"the tap's {name} is {type(value).__name__ if shape is None else f'a tensor {shape}'}",
                where=spec.where("tap"),
                allowed=f"a tensor (..., {views}, {'4, 4' if name == 'pose' else 'height, width'}), one per view",
            )
        flat = value.float().flatten(0, -3)
        stored[name] = F.adaptive_avg_pool2d(flat, size) if name in MAPS else flat
    return stored


def checked(found: dict[str, NDArray[np.float32]], spec: ExternalSpec) -> dict[str, NDArray[np.float32]]:
    """Predictions on the host, poses moved into the first view's frame. ConfigError for depth or confidence out of range."""
    wrong = {
        "depth": "depth" in found and not (found["depth"] > 0).all(),
        "confidence": "confidence" in found and not ((found["confidence"] >= 0) & (found["confidence"] <= 1)).all(),
        "pose": "pose" in found and not _rigid(found["pose"]),
    }
    allowed = {"depth": "numbers above 0", "confidence": "0 to 1", "pose": "world_from_camera: a rotation, then a translation"}
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise ConfigError(f"the tap's {name} has numbers out of range", where=spec.where("tap"), allowed=allowed[name])
    if "pose" not in found:
        return found
    world_from_camera = found["pose"].astype(np.float64)
    relative = (np.linalg.inv(world_from_camera[0]) @ world_from_camera).astype(np.float32)
    relative[0] = np.eye(4)
    return found | {"pose": relative}


def _rigid(poses: NDArray[np.float32]) -> bool:
    """Whether poses (V,4,4) are rotations without reflection, to the precision of bfloat16, and translations."""
    rotation = poses[:, :3, :3].astype(np.float64)
    turned = rotation @ rotation.transpose(0, 2, 1)
    right_handed = bool((np.linalg.det(rotation) > 0).all()) if np.isfinite(rotation).all() else False
    whole = bool(np.isfinite(poses).all() and np.allclose(poses[:, 3], (0, 0, 0, 1), atol=1e-3))
    return right_handed and whole and np.allclose(turned, np.eye(3), atol=3e-2)
