"""A frozen FLARE as a source of token features.

Three steps, so that an extraction can overlap them: ``prepare`` (CPU: resize and pin), ``start`` (queues everything on the
device and returns at once on a GPU), and the function that ``start`` returns (waits, and gives NumPy arrays).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.core.errors import DataError
from pipeline.core.provenance import file_digest
from pipeline.core.weights import state_digest
from pipeline.scenes.types import Scene
from pipeline.teachers._common.views import PreparedViews, begin_copy, prepared, side_by_side
from pipeline.teachers.base import TeacherFeatures
from pipeline.teachers.flare.config import FeatureLayer, FLAREConfig
from pipeline.teachers.flare.images import image_rule, pixels_to_input, to_pixels
from pipeline.teachers.flare.model import FLARE
from pipeline.teachers.flare.weights import load_checkpoint, untrained


class FeatureNetwork:
    """A network on a device. Its feature_layers are put together by ``side_by_side``."""

    def __init__(self, model: FLARE, *, device: str, bfloat16: bool):
        self.model = model.to(device).eval().requires_grad_(False)
        self.device, self.bfloat16 = torch.device(device), bfloat16

    def encode(self, scene: Scene) -> TeacherFeatures:
        """Compute features of all views, in order; the first view is FLARE's reference view."""
        return self.start(self.prepare(scene))()

    def prepare(self, scene: Scene) -> PreparedViews:
        """Resize and cut all views.

        Raise DataError for a scene of one view when a decoder's feature_layer is wanted: there is no view to compare it with.
        """
        views = len(scene.rgb)
        if views < 2 and self.model.coarse is not None:
            raise DataError(
                f"FLARE's decoders need two views or more, scene {scene.scene_id!r} has {views}",
                allowed="feature_layer: enc_norm, which sees every view by itself, or scenes of more views",
            )
        pixels = to_pixels(scene.rgb, self.model.config)
        grid = image_rule(*scene.record.image_size, self.model.config).grid
        return prepared(pixels, grid, self.device)

    @torch.inference_mode()
    def start(self, views: PreparedViews) -> Callable[[], TeacherFeatures]:
        """Queue the work of a scene; the returned function waits for its features."""
        grid = views.grid
        images = pixels_to_input(views.pixels.to(self.device, non_blocking=True))[None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            found = self.model(images)
        tokens = side_by_side([found[feature_layer][0].float() for feature_layer in self.model.feature_layers])
        ready = begin_copy(tokens.unflatten(1, (grid.rows, grid.cols)))
        return lambda: TeacherFeatures(ready(), grid)


def released_features(
    path: Path, config: FLAREConfig, feature_layers: tuple[FeatureLayer, ...], *, device: str, bfloat16: bool, fix: str
) -> tuple[FeatureNetwork, str]:
    """Return a feature network with a checkpoint's weights, and the file's digest. Raise CheckpointError on a misfit."""
    model = load_checkpoint(path, config, feature_layers, fix=fix)
    return FeatureNetwork(model, device=device, bfloat16=bfloat16), file_digest(path)


def untrained_features(
    config: FLAREConfig, feature_layers: tuple[FeatureLayer, ...], seed: int, *, device: str, bfloat16: bool
) -> tuple[FeatureNetwork, str]:
    """Return an untrained feature network and the digest of its weights."""
    model = untrained(config, feature_layers, seed)
    value = state_digest(model.entries())
    return FeatureNetwork(model, device=device, bfloat16=bfloat16), value
