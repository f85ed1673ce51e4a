"""A room as it is filmed and described: floor and walls, doors and windows, placed objects."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets._film.mesh import Mesh

Rect = tuple[float, float, float, float]
"""x0, y0, x1, y1 on the floor, metres."""

NORMALS = ((0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (1.0, 0.0))


@dataclass(frozen=True, slots=True)
class Opening:
    """A door or window in wall 0-3 (south, east, north, west), ``along`` its middle along the wall; heights in metres."""

    kind: str
    wall: int
    along: float
    width: float
    z: tuple[float, float]
    centre: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Item:
    """A placed object; ``on`` is the id of the object it stands on; ``front`` the unit direction it faces, if it has one."""

    object_id: int
    category: str
    colour: str
    mesh: Mesh
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    on: int | None
    front: tuple[float, float] | None

    @property
    def rect(self) -> Rect:
        """Footprint."""
        return (float(self.low[0]), float(self.low[1]), float(self.high[0]), float(self.high[1]))


@dataclass(slots=True)
class Room:
    """``bounds`` of the floor, ``height`` m, ``pillar`` a corner that is cut off by walls (or None)."""

    bounds: Rect
    height: float
    pillar: Rect | None
    openings: list[Opening]
    wall_colour: tuple[float, float, float]
    floor_colour: tuple[float, float, float]
    items: list[Item] = field(default_factory=list)

    def obstacles(self) -> NDArray[np.float64]:
        """Footprints (N,4) that a standing person keeps off."""
        rects = [i.rect for i in self.items if i.on is None and i.category != "picture"]
        return np.array(rects + ([self.pillar] if self.pillar else [])).reshape(-1, 4)

    def on_floor(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which floor points (N,2) of a camera path may be used: all of them, in a room made here."""
        return np.ones(len(points), dtype=bool)

    def wall_length(self, wall: int) -> float:
        """Length of a wall in metres."""
        return self.bounds[2] - self.bounds[0] if wall % 2 == 0 else self.bounds[3] - self.bounds[1]

    def wall_point(self, wall: int, along: float, off: float) -> tuple[float, float]:
        """The floor point ``along`` a wall and ``off`` metres in front of it."""
        x0, y0, x1, y1 = self.bounds
        points = ((x0 + along, y0 + off), (x1 - off, y0 + along), (x1 - along, y1 - off), (x0 + off, y1 - along))
        return points[wall]


def overlap(a: Rect, b: Rect, gap: float = 0.0) -> bool:
    """Return whether two footprints come closer than ``gap``."""
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap
