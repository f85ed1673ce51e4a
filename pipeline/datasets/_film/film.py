"""A camera's walk through a room: chosen views, images, depth, visible objects, and a detector's boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import FrameError
from pipeline.core.provenance import seed_for
from pipeline.datasets._film import camera, sensor
from pipeline.datasets._film.render import BACKGROUND, MeshRenderer, Rendering
from pipeline.datasets._film.room import Room
from pipeline.scenes.frames import choose_frames
from pipeline.scenes.geometry import voxel_ids

Floats = NDArray[np.float64]
PATH_FRAMES = 36
"""Frames of the walk from which the views are chosen."""
PREVIEW_PX = 28
"""Width of the pictures that choose the views."""
SEEN_SHARE = 0.004
"""Share of a view's pixels above which an object counts as seen by it."""


class Filmable(camera.Walkable, Protocol):
    """A room that can be filmed."""

    def on_floor(self, points: Floats) -> NDArray[np.bool_]:
        """Return which floor points (N,2) of a path a camera may stand on."""


@dataclass(frozen=True, slots=True)
class Film:
    """``rgb`` uint8 (V,H,W,3), ``depth_mm`` uint16 (V,H,W), ``poses`` (V,4,4), ``matrix`` (3,3); ``frames`` numbers on
    the path; ``visible`` per view {object id: share of pixels}; ``proposals`` (N,6)."""

    frames: tuple[int, ...]
    poses: Floats
    matrix: Floats
    rgb: NDArray[np.uint8]
    depth_mm: NDArray[np.uint16]
    visible: list[dict[int, float]]
    proposals: Floats


@dataclass(frozen=True, slots=True)
class BuiltRoom(Film):
    """A made room with its film."""

    room: Room


def streams_of(parts: tuple[Any, ...]) -> dict[str, np.random.Generator]:
    """One random stream per stage, so that one stage does not shift another."""
    return {name: np.random.default_rng(seed_for("rooms", name, *parts)) for name in ("layout", "camera", "sensor", "boxes")}


def film(
    room: Filmable,
    renderer: MeshRenderer,
    streams: Mapping[str, np.random.Generator],
    *,
    views: int,
    size: tuple[int, int],
    seed: int,
    exact_depth: bool = False,
) -> Film:
    """Walk through a room, choose the views, render them, and draw a detector's boxes.

    ``exact_depth``: depth without noise and holes. FrameError when no place of the walk is on the floor.
    """
    matrix = camera.intrinsics(streams["camera"], size[1], size[0])
    walk = camera.path(room, streams["camera"], max(PATH_FRAMES, 2 * views))
    places = np.flatnonzero(room.on_floor(walk[:, :2, 3]))
    if not len(places):
        raise FrameError("no place of the camera path is on free floor")
    frames = tuple(int(places[i]) for i in choose_views(renderer, walk[places], matrix, size, views, seed))
    poses = walk[list(frames)]
    rendering = renderer.render(poses, matrix, size)
    rgb = sensor.colour_images(rendering, streams["sensor"])
    depth = sensor.exact_depth_images(rendering) if exact_depth else sensor.depth_images(rendering, streams["sensor"])
    return Film(frames, poses, matrix, rgb, depth, visible_shares(rendering), detector_boxes(room, streams["boxes"]))


def choose_views(
    renderer: MeshRenderer, walk: Floats, matrix: Floats, size: tuple[int, int], views: int, seed: int
) -> tuple[int, ...]:
    """Views that see every object, twice if they can, and most of the room (greedy; see frames.py).

    Items are 0.5 m voxels, objects (as much as eight voxels), and objects seen from one of eight sides (as much as
    two), so that an object's second view is one from elsewhere and not the next frame of the walk.
    """
    scale = PREVIEW_PX / size[1]
    small = matrix.copy()
    small[:2] = matrix[:2] * scale
    small[:2, 2] += (scale - 1) / 2
    rows = max(2, round(size[0] * scale))
    ids, points = renderer.ids(walk, small, (rows, PREVIEW_PX))
    voxels = voxel_ids(points, np.ones(ids.shape, dtype=bool), 0.5)
    items = [_seen_items(ids[view], points[view], voxels[view], walk[view, :2, 3]) for view in range(len(walk))]
    return choose_frames(len(walk), views, strategy="max_coverage", coverage=items, seed=seed)


def _seen_items(
    ids: NDArray[np.int32], points: NDArray[np.float32], voxels: NDArray[np.int64], eye: Floats
) -> NDArray[np.int64]:
    """Items of one preview: voxels, objects eight times over, and (object, octant it is seen from) twice over."""
    number = (ids - BACKGROUND).ravel()
    pixels = np.bincount(number)
    x, y = (np.bincount(number, weights=points[..., k].ravel()) / np.maximum(pixels, 1) - eye[k] for k in (0, 1))
    seen = np.flatnonzero(pixels >= max(3, SEEN_SHARE * ids.size))
    seen = seen[seen > 0]
    octant = np.floor((np.arctan2(y[seen], x[seen]) / (2 * np.pi) % 1.0) * 8).astype(np.int64) % 8
    copies = 1000 * np.arange(8)[:, None] + seen
    sides = 100_000 + 10_000 * np.arange(2)[:, None] + 8 * seen + octant
    return np.concatenate([np.unique(voxels), copies.ravel(), sides.ravel()])


def visible_shares(rendering: Rendering) -> list[dict[int, float]]:
    """Per view the share of pixels of every object in it."""
    shares = []
    for view in rendering.instance:
        found, pixels = np.unique(view, return_counts=True)
        shares.append({int(i): round(float(n) / view.size, 6) for i, n in zip(found, pixels, strict=True) if i != BACKGROUND})
    return shares


def detector_boxes(room: camera.Walkable, rng: np.random.Generator) -> Floats:
    """Boxes (N,6) as a detector would give them: jittered, some missed, a few that are nothing, in no order."""
    boxes = []
    for item in room.items:
        if rng.random() < 0.06:
            continue
        size, centre = item.high - item.low, (item.low + item.high) / 2
        spread = rng.choice([0.025, 0.05, 0.11], p=[0.35, 0.45, 0.20])
        centre = centre + rng.normal(0, spread, 3) * size
        boxes.append(np.concatenate([centre, size * np.exp(rng.normal(0, 1.4 * spread, 3))]))
    x0, y0, x1, y1 = room.bounds
    for _ in range(int(rng.integers(2, 5))):
        size = rng.uniform((0.3, 0.3, 0.3), (1.2, 1.2, 1.2))
        centre = np.array([rng.uniform(x0 + 0.4, x1 - 0.4), rng.uniform(y0 + 0.4, y1 - 0.4), size[2] / 2 + rng.uniform(0, 0.6)])
        boxes.append(np.concatenate([centre, size]))
    return np.round(np.array(boxes)[rng.permutation(len(boxes))], 6)
