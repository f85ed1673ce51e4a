"""Training losses of VGGT (its section 3.4): cameras by Huber, depth and points by an error weighted with learned confidence.

For a map with error e, error g of its spatial gradient and confidence c >= 1 the loss is c * e + c * g - alpha * log c over
valid pixels: a pixel that the network cannot know costs less when it says so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.teachers.vggt.model import Prediction
from pipeline.teachers.vggt.targets import Batch

ALPHA = 0.2
CAMERA_WEIGHT = 5.0
ITERATION_DECAY = 0.6
"""Each earlier iteration of the camera head counts 0.6 of the next one."""


def map_loss(predicted: Tensor, target: Tensor, confidence: Tensor, valid: Tensor) -> Tensor:
    """Return the confidence-weighted loss of maps (B,V,h,w,c) over valid pixels (B,V,h,w), gradients included."""
    difference = predicted - target
    error = difference.norm(dim=-1) if difference.shape[-1] > 1 else difference[..., 0].abs()
    total = _mean(confidence * error - ALPHA * confidence.log(), valid)
    for axis in (2, 3):
        count = valid.shape[axis] - 1
        both = valid.narrow(axis, 0, count) & valid.narrow(axis, 1, count)
        slope = (difference.narrow(axis, 1, count) - difference.narrow(axis, 0, count)).abs().sum(-1)
        total = total + _mean(confidence.narrow(axis, 0, count) * slope, both)
    return total


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1.0)


def camera_loss(codes: list[Tensor], target: Tensor) -> Tensor:
    """Return the Huber loss of the pose codes of all iterations; a quaternion and its negative are the same rotation."""
    total = torch.zeros((), device=target.device)
    for number, code in enumerate(codes):
        sign = torch.where((code[..., 3:7] * target[..., 3:7]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
        wanted = torch.cat([target[..., :3], sign * target[..., 3:7], target[..., 7:]], dim=-1)
        total = total + ITERATION_DECAY ** (len(codes) - 1 - number) * F.huber_loss(code, wanted, delta=0.5)
    return total


def total_loss(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    """Return the parts and their sum under "loss"."""
    depth = map_loss(prediction.depth[..., None], batch.depth[..., None], prediction.depth_confidence, batch.valid)
    points = map_loss(prediction.points, batch.points, prediction.points_confidence, batch.valid)
    camera = camera_loss(prediction.pose_codes, batch.pose_codes)
    return {"loss": CAMERA_WEIGHT * camera + depth + points, "camera": camera, "depth": depth, "points": points}
