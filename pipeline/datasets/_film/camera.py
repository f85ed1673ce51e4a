"""A hand-held camera path: a walk between free spots, changing height, a drifting look-at point, and hand jitter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._film.room import Item, Rect

Floats = NDArray[np.float64]
HEIGHT_M = (1.2, 1.8)
NEED_M = 0.28
"""Free floor around the person."""
TILT = (-0.42, 0.15)
"""Lowest and highest sine of the viewing direction: nobody films their own feet."""


class Walkable(Protocol):
    """A room that a camera can walk through; ``bounds`` of its floor, the ``items`` that it looks at."""

    @property
    def bounds(self) -> Rect: ...

    @property
    def items(self) -> Sequence[Item]: ...

    def obstacles(self) -> Floats:
        """Footprints (N,4) x0,y0,x1,y1 that a standing person keeps off."""


def intrinsics(rng: np.random.Generator, width_px: int, height_px: int) -> Floats:
    """Pinhole matrix (3,3) in pixels: horizontal field of view 72-80 degrees, square pixels, centre a little off."""
    focal = width_px / 2 / np.tan(np.radians(rng.uniform(72.0, 80.0)) / 2)
    centre = np.array([(width_px - 1) / 2, (height_px - 1) / 2]) + rng.uniform(-0.01, 0.01, 2) * width_px
    matrix = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    return np.round(matrix, 6)


def path(room: Walkable, rng: np.random.Generator, count: int) -> Floats:
    """``count`` poses world_from_camera (count,4,4), OpenCV axes, all inside the free part of the room."""
    walk = _spline(_waypoints(room, rng, 5), count)
    rects = room.obstacles()
    tight = _clearance(room, rects, walk) < NEED_M
    eyes = np.array([_pushed_free(room, rects, p) if t else p for p, t in zip(walk, tight, strict=True)])
    heights = _spline(rng.uniform(*HEIGHT_M, 5)[:, None], count)
    eyes = np.column_stack([eyes, np.clip(heights[:, 0], *HEIGHT_M)])
    eyes += rng.normal(0, 0.012, eyes.shape)
    eyes[:, 2] = np.clip(eyes[:, 2], *HEIGHT_M)
    targets = _spline(_targets(room, rng, eyes), count)
    return _poses(eyes, targets, rng)


def _spline(knots: Floats, count: int) -> Floats:
    """Catmull-Rom curve through ``knots`` (K,D) sampled at ``count`` places -> (count,D)."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, count)
    i = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - i)[:, None]
    a, b, c, d = padded[i], padded[i + 1], padded[i + 2], padded[i + 3]
    curve: Floats = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve


def _clearance(room: Walkable, rects: Floats, points: Floats) -> Floats:
    """Distances (N,) in metres from floor points (N,2) to the nearest of ``rects`` (R,4) or walls (< 0: inside one)."""
    low, high = np.array(room.bounds[:2]), np.array(room.bounds[2:])
    nearest = np.minimum(points - low, high - points).min(1)
    if len(rects):
        below, above = rects[None, :, :2] - points[:, None], points[:, None] - rects[None, :, 2:]
        out = np.maximum(np.maximum(below, above), 0)
        inside = np.maximum(below, above).max(2)
        nearest = np.minimum(nearest, np.where(inside < 0, inside, np.hypot(out[..., 0], out[..., 1])).min(1))
    return np.asarray(nearest)


_ANGLES = np.arange(12) * (np.pi / 6)
_RINGS = np.concatenate([radius * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1) for radius in (0.3, 0.6, 0.9, 1.3, 1.8)])
"""Places to step aside to, nearest first."""


def _pushed_free(room: Walkable, rects: Floats, point: Floats) -> Floats:
    """The nearest of the places around a point that has room around it; the freest one when none has."""
    places = point + _RINGS
    clear = _clearance(room, rects, places)
    free = np.flatnonzero(clear >= NEED_M)
    return np.asarray(places[int(free[0]) if len(free) else int(clear.argmax())])


def _waypoints(room: Walkable, rng: np.random.Generator, count: int) -> Floats:
    """Free spots that lie far apart, in a short order of visiting."""
    x0, y0, x1, y1 = room.bounds
    spots = rng.uniform((x0 + 0.35, y0 + 0.35), (x1 - 0.35, y1 - 0.35), (30, 2))
    clear = _clearance(room, room.obstacles(), spots)
    spots = spots[np.argsort(-np.minimum(clear, 0.35), kind="stable")][:16]
    chosen = [0]
    while len(chosen) < count:
        away = np.min([np.hypot(*(spots - spots[k]).T) for k in chosen], axis=0)
        chosen.append(int(away.argmax()))
    order = [chosen.pop(0)]
    while chosen:
        nearest = min(chosen, key=lambda k: float(np.hypot(*(spots[k] - spots[order[-1]]))))
        chosen.remove(nearest)
        order.append(nearest)
    return np.asarray(spots[order])


def _targets(room: Walkable, rng: np.random.Generator, eyes: Floats) -> Floats:
    """Look-at points that drift over the room: every object once, the far ones of a moment first."""
    centres = np.array([(i.low + i.high) / 2 for i in room.items])
    middle = np.array([(room.bounds[0] + room.bounds[2]) / 2, (room.bounds[1] + room.bounds[3]) / 2])
    waiting = list(range(len(centres)))
    count = max(len(centres), 4)
    found = []
    for k in range(count):
        eye = eyes[round(k * (len(eyes) - 1) / (count - 1))]
        pool = waiting or list(range(len(centres)))
        away = np.hypot(*(centres[pool, :2] - eye[:2]).T)
        weights = np.clip(away - 1.0, 0.05, 2.0)
        chosen = pool[int(rng.choice(len(pool), p=weights / weights.sum()))]
        waiting = [i for i in waiting if i != chosen]
        target = centres[chosen].copy()
        target[:2] = 0.85 * target[:2] + 0.15 * middle + rng.normal(0, 0.12, 2)
        target[2] = 0.5 * target[2] + 0.35
        found.append(target)
    return np.array(found)


def _poses(eyes: Floats, targets: Floats, rng: np.random.Generator) -> Floats:
    """World-from-camera (N,4,4) of eyes that look at targets, with jitter of a few degrees and a little roll."""
    forward = targets - eyes
    steep = np.hypot(forward[:, 0], forward[:, 1]) < 0.4
    forward[steep, 0] += 0.4
    forward = _unit(forward)
    forward[:, 2] = np.clip(forward[:, 2], *TILT)
    forward = _unit(forward + rng.normal(0, 0.025, forward.shape))
    right = _unit(np.cross(forward, [0.0, 0.0, 1.0]))
    down = np.cross(forward, right)
    roll = np.radians(rng.normal(0, 1.5, len(eyes)))[:, None]
    poses = np.tile(np.eye(4), (len(eyes), 1, 1))
    poses[:, :3, 0] = np.cos(roll) * right + np.sin(roll) * down
    poses[:, :3, 1] = np.cos(roll) * down - np.sin(roll) * right
    poses[:, :3, 2] = forward
    poses[:, :3, 3] = eyes
    return np.round(poses, 7)


def _unit(vectors: Floats) -> Floats:
    """Vectors (N,3) of length 1."""
    return np.asarray(vectors / np.sqrt((vectors**2).sum(1, keepdims=True)))
