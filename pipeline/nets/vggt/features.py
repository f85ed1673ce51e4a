"""A frozen VGGT as a source of token features: wanted layers only, special tokens dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.nets.vggt.aggregator import Aggregator
from pipeline.nets.vggt.config import VGGTConfig
from pipeline.nets.vggt.images import image_rule, to_input
from pipeline.nets.vggt.model import NOT_BUILT, VGGT
from pipeline.nets.weights import check_entries, initialise, read_weights, state_digest
from pipeline.provenance import file_digest
from pipeline.scene import Scene
from pipeline.teachers.base import TeacherFeatures


class FeatureNetwork:
    """Aggregator on a device. ``layers`` are concatenated on channels; ``encoder`` adds the patch encoder's own tokens.

    With more than one part each is scaled to mean square 1 per token, so that none dominates a cosine; a single part is
    given as the network makes it.
    """

    def __init__(self, aggregator: Aggregator, layers: Sequence[int], *, encoder: bool, device: str, bfloat16: bool):
        self.aggregator = aggregator.to(device).eval().requires_grad_(False)
        self.layers, self.encoder = tuple(layers), encoder
        self.device, self.bfloat16 = device, bfloat16

    @torch.inference_mode()
    def encode(self, scene: Scene) -> TeacherFeatures:
        """Features of all views, in order; the first view is VGGT's reference view."""
        config = self.aggregator.config
        grid = image_rule(*scene.record.image_size, config).grid
        images = to_input(scene.rgb, config).to(self.device)[None]
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
            patches = self.aggregator.patch_tokens(images)
            kept = self.aggregator.aggregate(patches, images.shape[1], (grid.rows, grid.cols), self.layers)
        parts = [kept[layer % config.depth][0, :, config.lead :].float() for layer in self.layers]
        if self.encoder:
            parts.append(patches.float())
        tokens = parts[0] if len(parts) == 1 else torch.cat([_unit_square(part) for part in parts], dim=-1)
        return TeacherFeatures(tokens.unflatten(1, (grid.rows, grid.cols)).cpu().numpy(), grid)


def _unit_square(part: Tensor) -> Tensor:
    return part / part.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


def load_features(
    path: Path, config: VGGTConfig, layers: Sequence[int], encoder: bool, device: str, bfloat16: bool, mend: str
) -> tuple[FeatureNetwork, str]:
    """A feature network from a whole network's weights file, and the file's digest.

    Every entry must be known and of the right shape, the heads that are not used here included. CheckpointError otherwise,
    ConfigError for a layer that does not exist.
    """
    _check_layers(layers, config)
    state = {name: value for name, value in read_weights(path, mend=mend).items() if not name.startswith(NOT_BUILT)}
    with torch.device("meta"):
        skeleton = VGGT(config)
    check_entries(skeleton, state, where=str(path))
    aggregator = Aggregator(config)
    prefix = "aggregator."
    aggregator.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}, strict=True)
    network = FeatureNetwork(aggregator, layers, encoder=encoder, device=device, bfloat16=bfloat16)
    return network, file_digest(path)


def random_features(config: VGGTConfig, seed: int, layers: Sequence[int], device: str) -> tuple[FeatureNetwork, str]:
    """A network that has learned nothing, and the digest of its weights."""
    _check_layers(layers, config)
    aggregator = Aggregator(config)
    initialise(aggregator, seed)
    return FeatureNetwork(aggregator, layers, encoder=False, device=device, bfloat16=False), state_digest(
        aggregator.state_dict()
    )


def _check_layers(layers: Sequence[int], config: VGGTConfig) -> None:
    for layer in layers:
        if not -config.depth <= layer < config.depth:
            raise ConfigError(f"the aggregator has no layer {layer}", allowed=f"{-config.depth} to {config.depth - 1}")
