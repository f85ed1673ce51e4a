"""A frozen Pi3 or Pi3X as a source of token features, depth, confidence and camera poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.nets.pi3.config import RELEASED, TINY, Pi3Config, Variant
from pipeline.nets.pi3.heads import poses_of, relative_to_first
from pipeline.nets.pi3.images import to_input, token_grid
from pipeline.nets.pi3.model import NETWORKS, NOT_BUILT, Network
from pipeline.nets.pi3.trunk import Trunk
from pipeline.nets.weights import check_shapes, initialise, read_shapes, read_weights, state_digest
from pipeline.provenance import file_digest
from pipeline.scene import Scene
from pipeline.teachers.base import TeacherFeatures

ONLY_IN_PI3X = "metric_token"
"""An entry that tells the two checkpoints apart."""

TINY_SEED = 0


class FeatureNetwork:
    """A network on a device. ``layers`` are concatenated on channels, special tokens dropped.

    With more than one layer each is scaled to mean square 1 per token, so that none dominates a cosine; a single layer is
    given as the network makes it. A whole ``Network`` adds its predictions, a bare ``Trunk`` cannot.
    """

    def __init__(self, network: Trunk, layers: Sequence[int], *, device: str, bfloat16: bool):
        self.network = network.to(device).eval().requires_grad_(False)
        self.layers = tuple(layer % network.config.layers for layer in layers)
        self.device, self.bfloat16 = device, bfloat16

    @torch.inference_mode()
    def encode(self, scene: Scene) -> TeacherFeatures:
        """Features of all views, in one pass: every view attends to all others."""
        network, config = self.network, self.network.config
        grid, last = token_grid(*scene.record.image_size, config), config.layers - 1
        cells = (grid.rows, grid.cols)
        images = to_input(scene.rgb, config, self.device)[None]
        wanted = {*self.layers, last} if isinstance(network, Network) else set(self.layers)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
            kept = network(images, sorted(wanted))
            said = network.predict(kept[last], cells) if isinstance(network, Network) else None
        tokens = self._tokens([kept[layer][0, :, config.registers :] for layer in self.layers])
        found = tokens.unflatten(1, cells).cpu().numpy()
        if said is None:
            return TeacherFeatures(found, grid)
        camera = type(said.camera)(*(numbers[0].cpu().double() for numbers in said.camera))
        pose = relative_to_first(poses_of(camera)).float()
        return TeacherFeatures(found, grid, said.confidence[0].cpu().numpy(), said.depth[0].cpu().numpy(), pose.numpy())

    @staticmethod
    def _tokens(parts: list[Tensor]) -> Tensor:
        parts = [part.float() for part in parts]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part / part.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6) for part in parts], dim=-1)


def check_released(path: Path, variant: Variant, *, mend: str, config: Pi3Config = RELEASED) -> None:
    """Names and shapes of all entries of a released file, without its numbers. CheckpointError when they do not fit."""
    shapes = read_shapes(path, mend=mend)
    found: Variant = "pi3x" if ONLY_IN_PI3X in shapes else "pi3"
    if found != variant:
        fault = f"the entry {ONLY_IN_PI3X!r} is {'there' if found == 'pi3x' else 'missing'}"
        raise CheckpointError(
            f"the weights are not of variant {variant}: {fault}",
            where=str(path),
            mend=f"if they are of {found}, say so in config.yaml: teachers.<name>.variant: {found}; else {mend}",
        )
    with torch.device("meta"):
        skeleton = NETWORKS[variant](config)
    left_out = NOT_BUILT[variant]
    check_shapes(
        skeleton, {n: s for n, s in shapes.items() if not n.startswith(left_out)} if left_out else shapes, where=str(path)
    )


def load_features(
    path: Path,
    variant: Variant,
    layers: Sequence[int],
    *,
    predictions: bool,
    device: str,
    bfloat16: bool,
    mend: str,
    config: Pi3Config = RELEASED,
) -> tuple[FeatureNetwork, str]:
    """A feature network from a released file, and the file's digest. CheckpointError unless every entry fits.

    Without ``predictions`` the heads are checked but not built.
    """
    check_released(path, variant, mend=mend, config=config)
    with torch.device("meta"):
        network: Trunk = NETWORKS[variant](config) if predictions else Trunk(config)
    state = read_weights(path, mend=mend)
    network.load_state_dict({name: state[name].float() for name in network.state_dict()}, strict=True, assign=True)
    return FeatureNetwork(network, layers, device=device, bfloat16=bfloat16), file_digest(path)


def tiny_features(
    variant: Variant, layers: Sequence[int], *, predictions: bool, device: str, bfloat16: bool
) -> tuple[FeatureNetwork, str]:
    """The tiny size with its initial weights, and their digest."""
    network: Trunk = NETWORKS[variant](TINY) if predictions else Trunk(TINY)
    initialise(network, TINY_SEED)
    value = state_digest(network.state_dict())
    return FeatureNetwork(network, layers, device=device, bfloat16=bfloat16), value
