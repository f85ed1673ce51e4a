"""A hand-held camera path: a walk between free spots, changing height, a drifting look-at point, and hand jitter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.rooms.layout import Room

Floats = NDArray[np.float64]
HEIGHT_M = (1.2, 1.8)


def intrinsics(rng: np.random.Generator, width_px: int, height_px: int) -> Floats:
    """Pinhole matrix (3,3) in pixels: horizontal field of view 72-80 degrees, square pixels, centre a little off."""
    focal = width_px / 2 / np.tan(np.radians(rng.uniform(72.0, 80.0)) / 2)
    centre = np.array([(width_px - 1) / 2, (height_px - 1) / 2]) + rng.uniform(-0.01, 0.01, 2) * width_px
    matrix = np.array([[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]])
    return np.round(matrix, 6)


def path(room: Room, rng: np.random.Generator, count: int) -> Floats:
    """``count`` poses world_from_camera (count,4,4), OpenCV axes, all inside the free part of the room."""
    walk = _spline(_waypoints(room, rng, 5), count)
    eyes = np.array([_pushed_free(room, p) for p in walk])
    heights = _spline(rng.uniform(*HEIGHT_M, 5)[:, None], count)
    eyes = np.column_stack([eyes, np.clip(heights[:, 0], *HEIGHT_M)])
    eyes += rng.normal(0, 0.012, eyes.shape)
    eyes[:, 2] = np.clip(eyes[:, 2], *HEIGHT_M)
    targets = _spline(_targets(room, rng, eyes), count)
    return np.stack([_pose(eye, target, rng) for eye, target in zip(eyes, targets, strict=True)])


def _spline(knots: Floats, count: int) -> Floats:
    """Catmull-Rom curve through ``knots`` (K,D) sampled at ``count`` places -> (count,D)."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, count)
    i = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - i)[:, None]
    a, b, c, d = padded[i], padded[i + 1], padded[i + 2], padded[i + 3]
    curve: Floats = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve


def _obstacles(room: Room) -> Floats:
    """Footprints (N,4) that a standing person keeps off."""
    rects = [i.rect for i in room.items if i.on is None and i.category != "picture"]
    return np.array(rects + ([room.pillar] if room.pillar else [])).reshape(-1, 4)


def _clearance(room: Room, point: Floats) -> float:
    """Distance in metres from a floor point to the nearest obstacle or wall (negative: how far inside one)."""
    x0, y0, x1, y1 = room.bounds
    nearest = min(point[0] - x0, x1 - point[0], point[1] - y0, y1 - point[1])
    rects = _obstacles(room)
    if len(rects):
        outside = np.maximum(np.maximum(rects[:, :2] - point, point - rects[:, 2:]), 0)
        inside = np.minimum(point - rects[:, :2], rects[:, 2:] - point).min(1)
        nearest = min(nearest, float(np.where(inside > 0, -inside, np.hypot(outside[:, 0], outside[:, 1])).min()))
    return float(nearest)


def _pushed_free(room: Room, point: Floats, need_m: float = 0.28) -> Floats:
    """The point itself when it has room around it, else the freest of a ring of points near it."""
    if _clearance(room, point) >= need_m:
        return point
    angles = np.arange(12) * (np.pi / 6)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    for radius in (0.3, 0.6, 0.9, 1.3, 1.8):
        places = point + radius * ring
        free = [_clearance(room, p) for p in places]
        if max(free) >= need_m:
            return np.asarray(places[int(np.argmax(free))])
    return point


def _waypoints(room: Room, rng: np.random.Generator, count: int) -> Floats:
    """Free spots that lie far apart, in a short order of visiting."""
    x0, y0, x1, y1 = room.bounds
    spots = rng.uniform((x0 + 0.35, y0 + 0.35), (x1 - 0.35, y1 - 0.35), (30, 2))
    clear = np.array([_clearance(room, p) for p in spots])
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


def _targets(room: Room, rng: np.random.Generator, eyes: Floats) -> Floats:
    """Look-at points that drift over the room: mostly objects away from the camera."""
    count = 9
    centres = np.array([(i.low + i.high) / 2 for i in room.items])
    middle = np.array([(room.bounds[0] + room.bounds[2]) / 2, (room.bounds[1] + room.bounds[3]) / 2])
    found = []
    for k in range(count):
        eye = eyes[int(round(k * (len(eyes) - 1) / (count - 1)))]
        away = np.hypot(*(centres[:, :2] - eye[:2]).T)
        weights = np.clip(away - 1.0, 0.05, 2.0)
        target = centres[int(rng.choice(len(centres), p=weights / weights.sum()))].copy()
        target[:2] = 0.8 * target[:2] + 0.2 * middle + rng.normal(0, 0.15, 2)
        target[2] = 0.5 * target[2] + 0.35
        found.append(target)
    return np.array(found)


def _pose(eye: Floats, target: Floats, rng: np.random.Generator) -> Floats:
    """World-from-camera of an eye that looks at a target, with jitter of a few degrees and a little roll."""
    forward = target - eye
    if np.hypot(forward[0], forward[1]) < 0.4:
        forward[:2] += np.array([0.4, 0.0])
    forward = forward / np.linalg.norm(forward) + rng.normal(0, 0.025, 3)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = np.radians(rng.normal(0, 1.5))
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    pose = np.eye(4)
    pose[:3] = np.column_stack([right, down, forward, eye])
    return np.round(pose, 7)
