"""Correspondence between views, on the tokens themselves.

VGGT also learns to track points, which makes its features agree between views. Its tracker is too large for a network that is
trained in minutes, so the patch tokens get that supervision directly: a token must be more alike to the tokens of other views
that look at the same place than to all others (InfoNCE over the tokens of the other views). Without it, the small network's
tokens matched across views worse than those of a random network (19 % against 23 % of tokens, chance 1 %).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.teachers.vggt.targets import Batch

TEMPERATURE = 0.1
SAME_PLACE_M = 0.35
"""A patch of 16 pixels covers about 0.6 m at 3 m: centres closer than half of that look at the same place."""
LEAST_VALID = 0.25


def token_places(batch: Batch, rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """Return the mean position (B,V*P,3) in metres of each token's valid pixels, and whether enough are valid (B,V*P)."""
    weight = batch.valid.to(batch.points.dtype)
    share = F.adaptive_avg_pool2d(weight, (rows, cols))
    total = F.adaptive_avg_pool2d((batch.points * weight[..., None]).permute(0, 1, 4, 2, 3).flatten(0, 1), (rows, cols))
    total = total.unflatten(0, batch.valid.shape[:2]).permute(0, 1, 3, 4, 2)
    places = total / share.clamp_min(1e-6)[..., None] * batch.unit_m[:, None, None, None, None]
    return places.flatten(1, 3), (share >= LEAST_VALID).flatten(1)


def pairs(places: Tensor, known: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """Return (same place, comparable) of token pairs (B,N,N): comparable tokens are of different views and both known."""
    view = torch.arange(views, device=places.device).repeat_interleave(places.shape[1] // views)
    comparable = (view[:, None] != view[None]) & known[:, :, None] & known[:, None, :]
    return (torch.cdist(places, places) < SAME_PLACE_M) & comparable, comparable


def matching_loss(tokens: Tensor, batch: Batch, grid: tuple[int, int]) -> Tensor:
    """Return the InfoNCE of patch tokens (B,V,P,D) over tokens with at least one counterpart in another view."""
    same, comparable = pairs(*token_places(batch, *grid), tokens.shape[1])
    unit = F.normalize(tokens.flatten(1, 2), dim=-1)
    scores = (unit @ unit.transpose(1, 2) / TEMPERATURE).masked_fill(~comparable, -1e4)
    whole = scores.logsumexp(-1)
    found = scores.masked_fill(~same, -1e4).logsumexp(-1)
    anchors = same.any(-1).to(scores.dtype)
    return ((whole - found) * anchors).sum() / anchors.sum().clamp_min(1.0)


def matching_share(tokens: Tensor, batch: Batch, grid: tuple[int, int]) -> tuple[float, float]:
    """Return the share of tokens with a counterpart whose nearest token in other views shows the same place, and chance."""
    same, comparable = pairs(*token_places(batch, *grid), tokens.shape[1])
    unit = F.normalize(tokens.flatten(1, 2), dim=-1)
    best = (unit @ unit.transpose(1, 2)).masked_fill(~comparable, -2.0).argmax(-1, keepdim=True)
    anchors = same.any(-1)
    if not anchors.any():
        return 0.0, 0.0
    hits = same.gather(-1, best)[..., 0][anchors].float().mean()
    chance = (same.sum(-1) / comparable.sum(-1).clamp_min(1))[anchors].mean()
    return float(hits), float(chance)
