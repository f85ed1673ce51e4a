"""Triangle meshes from simple solids. Local object frame: x right, y to the front, z up, floor at z = 0, metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = Sequence[float]
Floats = NDArray[np.float64]

PLAIN, PLANKS, EMISSIVE, GRAIN = 0, 1, 2, 3
"""Surface kinds: plain, floor planks, light source seen through glass (no depth), slight grain."""

_BOX_TRIANGLES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip
_BOX_CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Mesh:
    """``vertices`` (N,3) m; ``triangles`` (T,3); per triangle ``albedo`` (T,3), ``surface`` (T,)."""

    vertices: Floats
    triangles: NDArray[np.int64]
    albedo: Floats
    surface: NDArray[np.int64]

    def moved(self, yaw: float, offset: Sequence[float]) -> Mesh:
        """Turned by ``yaw`` radians about z, then shifted by ``offset`` (3,)."""
        c, s = np.cos(yaw), np.sin(yaw)
        turned = self.vertices @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        return Mesh(turned + np.asarray(offset), self.triangles, self.albedo, self.surface)

    def bounds(self) -> tuple[Floats, Floats]:
        """Lowest and highest corner (3,) each."""
        return self.vertices.min(0), self.vertices.max(0)


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """All meshes as one."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.triangles + s for m, s in zip(meshes, starts, strict=True)]),
        np.concatenate([m.albedo for m in meshes]),
        np.concatenate([m.surface for m in meshes]),
    )


def _solid(vertices: Floats, triangles: NDArray[np.int64], colour: Colour, surface: int) -> Mesh:
    count = len(triangles)
    return Mesh(vertices, triangles, np.tile(np.asarray(colour, dtype=np.float64), (count, 1)), np.full(count, surface))


def block(x: Sequence[float], y: Sequence[float], z: Sequence[float], colour: Colour, surface: int = PLAIN) -> Mesh:
    """Axis-aligned box between (x0,x1), (y0,y1), (z0,z1)."""
    low = np.array([x[0], y[0], z[0]])
    size = np.array([x[1], y[1], z[1]]) - low
    return _solid(_BOX_CORNERS * size + low, _BOX_TRIANGLES, colour, surface)


def frustum(
    centre: Sequence[float], z: Sequence[float], radii: Sequence[float], colour: Colour, *, sides: int = 10, top: bool = True
) -> Mesh:
    """Cylinder or cone with its axis along z at ``centre`` (2,), ``radii`` at the lower and upper end; ``top``: lid on."""
    angles = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    low = np.column_stack([ring * radii[0] + np.asarray(centre), np.full(sides, z[0])])
    high = np.column_stack([ring * radii[1] + np.asarray(centre), np.full(sides, z[1])])
    hubs = np.array([[centre[0], centre[1], z[0]], [centre[0], centre[1], z[1]]])
    here = np.arange(sides)
    after = (here + 1) % sides
    parts = [
        np.stack([here, after, after + sides], 1),
        np.stack([here, after + sides, here + sides], 1),
        np.stack([after, here, np.full(sides, 2 * sides)], 1),
    ]
    if top:
        parts.append(np.stack([here + sides, after + sides, np.full(sides, 2 * sides + 1)], 1))
    return _solid(np.concatenate([low, high, hubs]), np.concatenate(parts), colour, PLAIN)


def ball(centre: Sequence[float], radii: Sequence[float], colour: Colour, *, rings: int = 4, sides: int = 7) -> Mesh:
    """Ellipsoid with half axes ``radii`` (3,) at ``centre`` (3,)."""
    polar = np.linspace(0, np.pi, rings + 1)
    around = np.arange(sides) * (2 * np.pi / sides)
    grid = np.stack(
        [
            np.outer(np.sin(polar), np.cos(around)),
            np.outer(np.sin(polar), np.sin(around)),
            np.outer(np.cos(polar), np.ones(sides)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    row, col = np.divmod(np.arange(rings * sides), sides)
    here, right = row * sides + col, row * sides + (col + 1) % sides
    triangles = np.concatenate([np.stack([here, here + sides, right + sides], 1), np.stack([here, right + sides, right], 1)])
    return _solid(grid * np.asarray(radii) + np.asarray(centre), triangles, colour, PLAIN)
