"""A frozen Pi3 or Pi3X as a source of token features, depth, confidence and camera poses.

Three steps, so that an extraction can overlap them: ``prepare`` (CPU: resize and pin), ``start`` (queues everything on the
device), and the function that ``start`` returns (waits, and gives NumPy arrays).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import CheckpointError
from pipeline.core.provenance import file_digest
from pipeline.core.weights import check_shapes, initialise, read_shapes, read_weights, state_digest
from pipeline.scenes.types import Scene
from pipeline.teachers._common.views import PreparedViews, begin_copy, prepared, side_by_side
from pipeline.teachers.base import TeacherFeatures
from pipeline.teachers.pi3.config import RELEASED, TINY, Pi3Config, Variant
from pipeline.teachers.pi3.heads import CameraNumbers, poses_of, relative_to_first
from pipeline.teachers.pi3.images import to_pixels, token_grid
from pipeline.teachers.pi3.model import NETWORKS, NOT_BUILT, Network
from pipeline.teachers.pi3.trunk import Trunk
from pipeline.teachers.vggt.images import pixels_to_input

ONLY_IN_PI3X = "metric_token"
"""An entry that tells the two checkpoints apart."""

TINY_SEED = 0


class FeatureNetwork:
    """A network on a device. ``layers`` are put together by ``side_by_side``, special tokens dropped.

    A whole ``Network`` adds its predictions, a bare ``Trunk`` cannot.
    """

    def __init__(self, network: Trunk, layers: Sequence[int], *, device: str, bfloat16: bool):
        self.network = network.to(device).eval().requires_grad_(False)
        self.layers = tuple(layer % network.config.layers for layer in layers)
        self.device, self.bfloat16 = torch.device(device), bfloat16

    def prepare(self, scene: Scene) -> PreparedViews:
        """Resize all views."""
        config = self.network.config
        pixels = torch.from_numpy(to_pixels(scene.rgb, config))
        return prepared(pixels, token_grid(*scene.record.image_size, config), self.device)

    def encode(self, scene: Scene) -> TeacherFeatures:
        """Compute features of all views in one pass: every view attends to all others."""
        return self.start(self.prepare(scene))()

    @torch.inference_mode()
    def start(self, views: PreparedViews) -> Callable[[], TeacherFeatures]:
        """Queue the work of a scene; the returned function waits for its features."""
        images = pixels_to_input(views.pixels.to(self.device, non_blocking=True))[None]
        ready = {name: begin_copy(value) for name, value in self.outputs(images).items()}

        def features() -> TeacherFeatures:
            found = {name: array() for name, array in ready.items()}
            pose = _poses(found["translation"], found["matrix"]) if "matrix" in found else None
            return TeacherFeatures(found["tokens"], views.grid, found.get("confidence"), found.get("depth"), pose)

        return features

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (1,V,3,H,W) in [0,1] to ``tokens`` (V,G,K,D) and, with heads, ``depth`` and ``confidence`` (V,G,K) and
        the numbers of the camera poses: ``translation`` (V,3), ``matrix`` (V,3,3).
        """
        network, config = self.network, self.network.config
        cells, last = (images.shape[-2] // config.patch, images.shape[-1] // config.patch), config.layers - 1
        wanted = {*self.layers, last} if isinstance(network, Network) else set(self.layers)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            kept = network(images, sorted(wanted))
            said = network.predict(kept[last], cells) if isinstance(network, Network) else None
        tokens = side_by_side([kept[layer][0, :, config.registers :].float() for layer in self.layers])
        found = {"tokens": tokens.unflatten(1, cells)}
        if said is None:
            return found
        found |= {"depth": said.depth[0], "confidence": said.confidence[0]}
        return found | {"translation": said.camera.translation[0], "matrix": said.camera.matrix[0]}


def _poses(translation: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn the camera head's numbers into world_from_camera (V,4,4) in the frame of the first view's camera."""
    camera = CameraNumbers(torch.from_numpy(translation).double(), torch.from_numpy(matrix).double())
    return relative_to_first(poses_of(camera)).float().numpy()


def check_released(path: Path, variant: Variant, *, fix: str, config: Pi3Config = RELEASED) -> None:
    """Check names and shapes of all entries of a released file from its header. Raise CheckpointError when they do not fit."""
    shapes = read_shapes(path, fix=fix)
    found: Variant = "pi3x" if ONLY_IN_PI3X in shapes else "pi3"
    if found != variant:
        fault = f"the entry {ONLY_IN_PI3X!r} is {'there' if found == 'pi3x' else 'missing'}"
        raise CheckpointError(
            f"the weights are not of variant {variant}: {fault}",
            where=str(path),
            fix=f"if they are of {found}, say so in config.yaml: teachers.<name>.variant: {found}; else {fix}",
        )
    with torch.device("meta"):
        skeleton = NETWORKS[variant](config)
    built = {name: shape for name, shape in shapes.items() if not name.startswith(NOT_BUILT[variant])}
    check_shapes(skeleton, built, where=str(path), fix=fix)


def load_features(
    path: Path,
    variant: Variant,
    layers: Sequence[int],
    *,
    predictions: bool,
    device: str,
    bfloat16: bool,
    fix: str,
    config: Pi3Config = RELEASED,
) -> tuple[FeatureNetwork, str]:
    """Return a feature network from a released file, and the file's digest. Raise CheckpointError unless every entry fits.

    Without ``predictions`` the heads are checked but not built.
    """
    check_released(path, variant, fix=fix, config=config)
    with torch.device("meta"):
        network: Trunk = NETWORKS[variant](config) if predictions else Trunk(config)
    state = read_weights(path, fix=fix)
    network.load_state_dict({name: state[name].float() for name in network.state_dict()}, strict=True, assign=True)
    return FeatureNetwork(network, layers, device=device, bfloat16=bfloat16), file_digest(path)


def tiny_features(
    variant: Variant, layers: Sequence[int], *, predictions: bool, device: str, bfloat16: bool
) -> tuple[FeatureNetwork, str]:
    """Return the tiny size with its initial weights, and their digest. The trunk is the same with and without predictions."""
    network: Trunk = NETWORKS[variant](TINY)
    initialise(network, TINY_SEED)
    state = network.state_dict()
    if not predictions:
        network = Trunk(TINY)
        network.load_state_dict({name: state[name] for name in network.state_dict()}, strict=True)
    return FeatureNetwork(network, layers, device=device, bfloat16=bfloat16), state_digest(state)
