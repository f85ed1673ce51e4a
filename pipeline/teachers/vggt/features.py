"""A frozen VGGT as a source of features: wanted layers only, special tokens dropped, heads only where they are asked for.

Three steps, so that an extraction can overlap them: ``prepare`` (CPU: resize and pin), ``start`` (queues everything on the
device and returns at once on a GPU), and the function that ``start`` returns (waits, and gives NumPy arrays).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.core.provenance import file_digest
from pipeline.core.weights import check_entries, check_shapes, initialise, read_shapes, read_weights, state_digest
from pipeline.scenes.types import Scene
from pipeline.teachers._common.views import PreparedViews, begin_copy, prepared, side_by_side
from pipeline.teachers.base import TeacherFeatures
from pipeline.teachers.vggt.camera import decode_pose
from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.images import image_rule, pixels_to_input, to_pixels
from pipeline.teachers.vggt.model import NOT_BUILT, VGGT, Head

DENSE_VIEWS = 8
"""Views per pass of the depth head, which works on every view by itself: bounds its memory, changes no number."""
PREDICTION_HEADS: tuple[Head, ...] = ("camera", "depth")


class FeatureNetwork:
    """A network on a device. ``layers``, and with ``encoder`` the patch encoder's own tokens, are put ``side_by_side``.

    A network with camera and depth head also predicts: depth is the mean of the head's depth over a token's pixels; confidence
    the mean of 1 - 1/c (the head's c >= 1 is 1 + e^x, so this is the sigmoid of x); poses are those of the camera head's last
    iteration, moved into the first view's frame. Heads run in float32, as they were made.
    """

    def __init__(self, network: VGGT, layers: Sequence[int], *, encoder: bool, device: str, bfloat16: bool):
        self.network = network.to(device).eval().requires_grad_(False)
        self.layers, self.encoder = tuple(layers), encoder
        self.device, self.bfloat16 = torch.device(device), bfloat16
        self.predictions = set(PREDICTION_HEADS) <= network.heads

    def prepare(self, scene: Scene) -> PreparedViews:
        """Resize all views."""
        config = self.network.config
        return prepared(to_pixels(scene.rgb, config), image_rule(*scene.record.image_size, config).grid, self.device)

    def encode(self, scene: Scene) -> TeacherFeatures:
        """Compute features of all views, in order; the first view is VGGT's reference view."""
        return self.start(self.prepare(scene))()

    @torch.inference_mode()
    def start(self, views: PreparedViews) -> Callable[[], TeacherFeatures]:
        """Queue the work of a scene; the returned function waits for its features."""
        grid, size = views.grid, (views.pixels.shape[1], views.pixels.shape[2])
        images = pixels_to_input(views.pixels.to(self.device, non_blocking=True))[None]
        ready = _fetch(self.outputs(images))

        def features() -> TeacherFeatures:
            found = ready()
            pose = first_view_poses(found["pose_code"], size) if self.predictions else None
            return TeacherFeatures(found["tokens"], grid, found.get("confidence"), found.get("depth"), pose)

        return features

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (1,V,3,H,W) in [0,1] to ``tokens`` (V,G,K,D) and, with heads, ``depth``, ``confidence``, ``pose_code``."""
        config, aggregator = self.network.config, self.network.aggregator
        rows, cols = images.shape[-2] // config.patch, images.shape[-1] // config.patch
        last = config.depth - 1
        keep = {layer % config.depth for layer in self.layers} | ({last, *config.dpt_layers} if self.predictions else set())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            patches = aggregator.patch_tokens(images)
            kept = aggregator.aggregate(patches, images.shape[1], (rows, cols), sorted(keep))
        parts = [kept[layer % config.depth][0, :, config.lead :].float() for layer in self.layers]
        if self.encoder:
            parts.append(patches.float())
        outputs = {"tokens": side_by_side(parts).unflatten(1, (rows, cols))}
        return outputs | self._predict(kept, (images.shape[-2], images.shape[-1])) if self.predictions else outputs

    def _predict(self, kept: dict[int, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        config, network = self.network.config, self.network
        grid = (size[0] // config.patch, size[1] // config.patch)
        code = network.camera_head(kept[config.depth - 1][:, :, 0].float())[-1][0]
        maps = []
        for start in range(0, len(code), DENSE_VIEWS):
            some = {layer: kept[layer][:, start : start + DENSE_VIEWS].float() for layer in set(config.dpt_layers)}
            depth, confidence = network.depth_head(some, size)
            maps.append(F.adaptive_avg_pool2d(torch.stack([depth[0, ..., 0], 1 - 1 / confidence[0]], dim=1), grid))
        depth, confidence = torch.cat(maps).unbind(1)
        return {"depth": depth, "confidence": confidence, "pose_code": code}


def _fetch(tensors: dict[str, Tensor]) -> Callable[[], dict[str, NDArray[np.float32]]]:
    """Begin to copy tensors to the host; the returned function waits and gives arrays."""
    copies = {name: begin_copy(value) for name, value in tensors.items()}
    return lambda: {name: array() for name, array in copies.items()}


def first_view_poses(codes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return world_from_camera (V,4,4) of pose codes (V,9); the world is exactly the first view's camera."""
    extrinsics, _ = decode_pose(torch.from_numpy(codes).double(), size)
    camera_from_world = np.tile(np.eye(4), (len(codes), 1, 1))
    camera_from_world[:, :3] = extrinsics.numpy()
    poses = (camera_from_world[0] @ np.linalg.inv(camera_from_world)).astype(np.float32)
    poses[0] = np.eye(4)
    return poses


def load_features(
    path: Path,
    config: VGGTConfig,
    layers: Sequence[int],
    encoder: bool,
    device: str,
    bfloat16: bool,
    fix: str,
    predictions: bool = False,
) -> tuple[FeatureNetwork, str]:
    """Return a feature network from a whole network's weights file, and the file's digest.

    Every entry must be known and of the right shape, the heads that are not used here included. The file is mapped, not
    copied: on a GPU its entries pass through host memory page by page. CheckpointError otherwise, ConfigError for a layer
    that does not exist.
    """
    check_layers(layers, config)
    state = read_weights(path, fix=fix)
    with torch.device("meta"):
        skeleton = VGGT(config)
        network = VGGT(config, PREDICTION_HEADS if predictions else ())
    check_entries(skeleton, {n: v for n, v in state.items() if not n.startswith(NOT_BUILT)}, where=str(path), fix=fix)
    network.load_state_dict({name: state[name].float() for name in network.state_dict()}, strict=True, assign=True)
    return FeatureNetwork(network, layers, encoder=encoder, device=device, bfloat16=bfloat16), file_digest(path)


def check_file(path: Path, config: VGGTConfig, fix: str) -> None:
    """Raise CheckpointError unless a weights file holds exactly the network's entries. Reads names and shapes only."""
    with torch.device("meta"):
        skeleton = VGGT(config)
    shapes = {n: s for n, s in read_shapes(path, fix=fix).items() if not n.startswith(NOT_BUILT)}
    check_shapes(skeleton, shapes, where=str(path), fix=fix)


def random_features(
    config: VGGTConfig, seed: int, layers: Sequence[int], device: str, *, bfloat16: bool = False, predictions: bool = False
) -> tuple[FeatureNetwork, str]:
    """Return an untrained network and the digest of its aggregator's weights."""
    check_layers(layers, config)
    network = VGGT(config, PREDICTION_HEADS if predictions else ())
    initialise(network.aggregator, seed)
    digest = state_digest(network.aggregator.state_dict())
    return FeatureNetwork(network, layers, encoder=False, device=device, bfloat16=bfloat16), digest


def check_layers(layers: Sequence[int], config: VGGTConfig) -> None:
    """Raise ConfigError for a layer that the aggregator does not have."""
    for layer in layers:
        if not -config.depth <= layer < config.depth:
            raise ConfigError(f"the aggregator has no layer {layer}", allowed=f"{-config.depth} to {config.depth - 1}")
