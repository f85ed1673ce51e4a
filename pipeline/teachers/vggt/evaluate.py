"""Evaluation of a VGGT on held-out scenes, beside the best constant answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.scenes.index import SceneIndex
from pipeline.teachers.vggt.camera import quaternion_to_matrix
from pipeline.teachers.vggt.matching import matching_share
from pipeline.teachers.vggt.model import VGGT, Prediction
from pipeline.teachers.vggt.targets import Batch, collate


@torch.inference_mode()
def evaluate(model: VGGT, index: SceneIndex, scene_ids: Sequence[str], device: str) -> dict[str, float]:
    """Return means over scenes, all views in order: relative depth error, point error in metres, camera errors.

    Each has a twin ``*_constant``: depth and points predicted as their own mean over the scene's valid pixels, cameras as the
    first view's. Depth and points are compared in the scene's unit of length, as they were learned. ``matching`` is the share
    of tokens whose most alike token of the other views looks at the same place; ``matching_chance`` that of a blind guess.
    """
    model.eval()
    rows = []
    for scene_id in scene_ids:
        scene = index.load(scene_id)
        batch = collate([scene], model.config).to(device)
        if batch.valid.any():
            rows.append(_errors(model(batch.images), batch, model.config.patch))
    return {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]} if rows else {}


def _errors(prediction: Prediction, batch: Batch, patch: int) -> dict[str, float]:
    depth, points = batch.depth[batch.valid], batch.points[batch.valid]
    unit_m, target = float(batch.unit_m[0]), batch.pose_codes[0, 1:]
    code = prediction.pose_codes[-1][0, 1:]
    still = torch.zeros_like(target)
    still[..., 6] = 1.0
    grid = (batch.images.shape[-2] // patch, batch.images.shape[-1] // patch)
    matching, chance = matching_share(prediction.tokens, batch, grid)
    rows = {
        "matching": matching,
        "matching_chance": chance,
        "depth_absrel": ((prediction.depth[batch.valid] - depth).abs() / depth).mean(),
        "depth_absrel_constant": ((depth.mean() - depth).abs() / depth).mean(),
        "point_error_m": (prediction.points[batch.valid] - points).norm(dim=-1).mean() * unit_m,
        "point_error_m_constant": (points.mean(0) - points).norm(dim=-1).mean() * unit_m,
    }
    if len(target):
        rows |= {
            "rotation_deg": _angle_deg(code, target).mean(),
            "rotation_deg_constant": _angle_deg(still, target).mean(),
            "camera_m": (_centre(code) - _centre(target)).norm(dim=-1).mean() * unit_m,
            "camera_m_constant": _centre(target).norm(dim=-1).mean() * unit_m,
        }
    return {name: float(value) for name, value in rows.items()}


def _angle_deg(code: Tensor, target: Tensor) -> Tensor:
    relative = quaternion_to_matrix(code[..., 3:7]) @ quaternion_to_matrix(target[..., 3:7]).transpose(-1, -2)
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return cosine.clamp(-1, 1).acos().rad2deg()


def _centre(code: Tensor) -> Tensor:
    """Return camera centres (...,3) in the first view's frame."""
    return -(quaternion_to_matrix(code[..., 3:7]).transpose(-1, -2) @ code[..., :3, None])[..., 0]
