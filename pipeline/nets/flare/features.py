"""A frozen FLARE as a source of token features.

Three steps, so that an extraction can overlap them: ``prepare`` (CPU: resize and pin), ``start`` (queues everything on the
device and returns at once on a GPU), and the function that ``start`` returns (waits, and gives NumPy arrays).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import DataError
from pipeline.nets.flare.config import FLAREConfig, TapName
from pipeline.nets.flare.images import image_rule, pixels_to_input, to_pixels
from pipeline.nets.flare.model import FLARE
from pipeline.nets.flare.weights import load_checkpoint, untrained
from pipeline.nets.views import PreparedViews, begin_copy
from pipeline.nets.weights import state_digest
from pipeline.provenance import file_digest
from pipeline.scene import Scene
from pipeline.teachers.base import TeacherFeatures


class FeatureNetwork:
    """A network on a device. Its taps stand side by side on channels.

    With more than one tap each is scaled to mean square 1 per token, so that none dominates a cosine; a single tap is given
    as the network makes it.
    """

    def __init__(self, model: FLARE, *, device: str, bfloat16: bool):
        self.model = model.to(device).eval().requires_grad_(False)
        self.device, self.bfloat16 = torch.device(device), bfloat16

    def encode(self, scene: Scene) -> TeacherFeatures:
        """Features of all views, in order; the first view is FLARE's reference view."""
        return self.start(self.prepare(scene))()

    def prepare(self, scene: Scene) -> PreparedViews:
        """Resize and cut all views; in page-locked memory for a GPU, so that the copy to it does not stop anything.

        DataError for a scene of one view when a decoder's tap is wanted: there is no view to compare it with.
        """
        views = len(scene.rgb)
        if views < 2 and self.model.coarse is not None:
            raise DataError(
                f"FLARE's decoders need two views or more, scene {scene.scene_id!r} has {views}",
                allowed="tap: enc_norm, which sees every view by itself, or scenes of more views",
            )
        pixels = to_pixels(scene.rgb, self.model.config)
        grid = image_rule(*scene.record.image_size, self.model.config).grid
        return PreparedViews(pixels.pin_memory() if self.device.type == "cuda" else pixels, grid)

    @torch.inference_mode()
    def start(self, prepared: PreparedViews) -> Callable[[], TeacherFeatures]:
        """Queue the work of a scene; the returned function waits for its features."""
        grid = prepared.grid
        images = pixels_to_input(prepared.pixels.to(self.device, non_blocking=True))[None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            found = self.model(images)
        parts = [found[tap][0].float() for tap in self.model.taps]
        tokens = parts[0] if len(parts) == 1 else torch.cat([_unit_square(part) for part in parts], dim=-1)
        ready = begin_copy(tokens.unflatten(1, (grid.rows, grid.cols)))
        return lambda: TeacherFeatures(ready(), grid)


def _unit_square(part: Tensor) -> Tensor:
    return part / part.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


def released_features(
    path: Path, config: FLAREConfig, taps: tuple[TapName, ...], *, device: str, bfloat16: bool, mend: str
) -> tuple[FeatureNetwork, str]:
    """A feature network with a checkpoint's weights, and the digest of the file. CheckpointError when it does not fit."""
    model = load_checkpoint(path, config, taps, mend=mend)
    return FeatureNetwork(model, device=device, bfloat16=bfloat16), file_digest(path)


def untrained_features(
    config: FLAREConfig, taps: tuple[TapName, ...], seed: int, *, device: str, bfloat16: bool
) -> tuple[FeatureNetwork, str]:
    """A feature network that has learned nothing, and the digest of its weights."""
    model = untrained(config, taps, seed)
    value = state_digest(model.entries())
    return FeatureNetwork(model, device=device, bfloat16=bfloat16), value
