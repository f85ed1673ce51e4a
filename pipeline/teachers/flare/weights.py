"""The released checkpoint of FLARE (geometry_pose.pth) and random weights.

Upstream keeps the network under the key ``model`` of a pickled dictionary and loads it without asking whether all names fit.
Here every entry that any feature layer needs must be there with its shape; known entries of heads that are not built are left
out, and other names, which an actual file may hold, are counted on stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.core.errors import CheckpointError
from pipeline.core.provenance import seed_for
from pipeline.core.weights import INITIAL_STD, differences, initialise, named, other_weights, read_shapes, read_weights
from pipeline.teachers.flare.config import FeatureLayer, FLAREConfig
from pipeline.teachers.flare.layers import JointAttention
from pipeline.teachers.flare.model import FLARE

NOT_BUILT = (
    "mask_token",
    "patch_embed_coarse.",
    "patch_embed_test_.",
    "enc_blocks_stage2.",
    "enc_norm_stage2.",
    "dec_norm.",
    "downstream_head1.",
    "downstream_head2.",
    "downstream_head4.",
    "cnn_wobn.",
    "cnn_proj.",
    "cnn_fusion.",
)
"""Beginnings of names of known entries that no feature layer needs (heads for points and Gaussians, parts never called)."""

Shapes = Mapping[str, tuple[int, ...]]


def read_entries(path: Path, *, fix: str) -> dict[str, Tensor]:
    """Read the entries of a checkpoint: a pickled file with them under ``model`` or at top level, or a .safetensors file.

    Pickled files are memory-mapped: no tensor is read before it is used. Raise CheckpointError when it is not such a file.
    """
    # Checkpoints of this family keep the command line's arguments beside the network; a namespace is plain data.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = read_weights(path, fix=fix)
    entries = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries or not all(isinstance(value, Tensor) for value in entries.values()):
        raise CheckpointError(
            f"weights {path} hold no network", allowed="tensors by name, as they are or under the key 'model'", fix=fix
        )
    return named(entries, where=str(path))


def entry_shapes(path: Path, *, fix: str) -> Shapes:
    """Name -> shape of every entry of a checkpoint; tensors are not read."""
    if path.suffix == ".safetensors":
        return read_shapes(path, fix=fix)
    return {name: tuple(value.shape) for name, value in read_entries(path, fix=fix).items()}


def check_shapes(found: Shapes, config: FLAREConfig, *, where: str, fix: str) -> list[str]:
    """Return names that are neither needed nor known. Raise CheckpointError when a needed entry is missing or misshapen."""
    with torch.device("meta"):
        needed = {name: tuple(value.shape) for name, value in FLARE(config).entries().items()}
    text = differences(needed, found, every=False)
    if text:
        raise CheckpointError(
            f"weights do not fit FLARE's geometry and pose model: of {len(needed)} entries {text}",
            where=where,
            fix=other_weights(fix),
        )
    return [name for name in found if name not in needed and not name.startswith(NOT_BUILT)]


def check_checkpoint(path: Path, config: FLAREConfig, *, fix: str) -> None:
    """Check names and shapes of a checkpoint without reading tensors; unknown names are counted on stderr."""
    unknown = check_shapes(entry_shapes(path, fix=fix), config, where=str(path), fix=fix)
    if unknown:
        text = f"note: {len(unknown)} entries of {path} are unknown to FLARE and not used, first {unknown[0]!r}"
        print(text, file=sys.stderr, flush=True)


def load_checkpoint(path: Path, config: FLAREConfig, feature_layers: Sequence[FeatureLayer], *, fix: str) -> FLARE:
    """Return the network with a checkpoint's weights, only what the layers need. Raise CheckpointError as ``check_shapes``."""
    check_checkpoint(path, config, fix=fix)
    with torch.device("meta"):
        model = FLARE(config, feature_layers)
    model.load_entries(read_entries(path, fix=fix))
    return model


def untrained(config: FLAREConfig, feature_layers: Sequence[FeatureLayer], seed: int) -> FLARE:
    """Return the network with weights drawn from ``seed`` alone."""
    model = FLARE(config, feature_layers)
    for stage in model.stages():
        initialise(stage, seed)
        _initialise_rest(stage, seed)
    return model


def _initialise_rest(stage: nn.Module, seed: int) -> None:
    """Initialise pose tokens and joint attention, whose parameters belong to none of torch's layers."""
    generator = torch.Generator().manual_seed(seed_for("flare", seed))
    for name, parameter in stage.named_parameters():
        if "pose_token" in name:
            nn.init.normal_(parameter, std=INITIAL_STD, generator=generator)
    for module in stage.modules():
        if isinstance(module, JointAttention):
            std = module.in_proj_weight.shape[1] ** -0.5
            nn.init.trunc_normal_(module.in_proj_weight, std=std, a=-2 * std, b=2 * std, generator=generator)
