"""Training targets of VGGT from posed depth: maps and cameras in the frame of the scene's first view, in a scene-wise unit.

The unit is the mean distance of the valid points from the first camera, so the network never has to guess metric scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.scenes.geometry import unproject
from pipeline.scenes.types import Scene
from pipeline.teachers.vggt.camera import encode_pose
from pipeline.teachers.vggt.config import VGGTConfig
from pipeline.teachers.vggt.images import image_rule, to_input


@dataclass(frozen=True, slots=True)
class Batch:
    """Images (B,V,3,H,W), depth and validity (B,V,h,w), points (B,V,h,w,3), pose codes (B,V,9), unit in metres (B,)."""

    images: Tensor
    depth: Tensor
    valid: Tensor
    points: Tensor
    pose_codes: Tensor
    unit_m: Tensor

    def maps_of(self, views: Sequence[int]) -> Batch:
        """Return the same batch with the maps of some views only; images and cameras stay complete."""
        chosen = list(views)
        return replace(self, depth=self.depth[:, chosen], valid=self.valid[:, chosen], points=self.points[:, chosen])

    def to(self, device: str) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def collate(scenes: Sequence[Scene], config: VGGTConfig) -> Batch:
    """Stack scenes with equally many views into one batch; the first view of each is its reference."""
    return Batch(*(torch.stack(values) for values in zip(*(_one(scene, config) for scene in scenes), strict=True)))


def _one(scene: Scene, config: VGGTConfig) -> tuple[Tensor, ...]:
    record = scene.record
    poses = np.linalg.inv(record.world_from_camera[0]) @ record.world_from_camera
    rows, cols = _sampled_pixels(scene, config)
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, poses)
    points, valid = points[:, rows][:, :, cols], valid[:, rows][:, :, cols]
    unit_m = float(np.linalg.norm(points[valid], axis=-1).mean()) if valid.any() else 1.0
    extrinsics = np.linalg.inv(poses)
    extrinsics[:, :3, 3] /= unit_m
    intrinsics = torch.from_numpy(record.intrinsics).expand(len(poses), 3, 3)
    return (
        to_input(scene.rgb, config),
        torch.from_numpy(scene.depth_m[:, rows][:, :, cols] / np.float32(unit_m)),
        torch.from_numpy(valid),
        torch.from_numpy(points / np.float32(unit_m)),
        encode_pose(torch.from_numpy(extrinsics), intrinsics, record.image_size).float(),
        torch.tensor(unit_m),
    )


def _sampled_pixels(scene: Scene, config: VGGTConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the depth image at the centres of the dense heads' output pixels."""
    rule = image_rule(*scene.record.image_size, config)
    height, width = scene.depth_m.shape[1:]
    out_rows, out_cols = rule.kept // config.output_stride, rule.width // config.output_stride
    y = (rule.top + (np.arange(out_rows) + 0.5) * config.output_stride) / rule.height
    x = (np.arange(out_cols) + 0.5) * config.output_stride / rule.width
    return (y * height).astype(int), (x * width).astype(int)
