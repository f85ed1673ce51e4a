"""Distances and sizes of furniture by its surfaces, not by its boxes, as VSI-Bench asks for them.

A chair that stands askew, a round table and an L-shaped sofa do not fill their boxes; between boxes they would be up to half a
metre too close. Surfaces are sampled evenly, which is right to about a centimetre from half a metre on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree

from pipeline.datasets._film.mesh import Mesh

Floats = NDArray[np.float64]
SAMPLES = 3000
"""Points of a surface; at most as many of its vertices come on top."""
PROBES = 50
"""Points with which a first distance of two meshes is measured."""
_STEPS = np.array([0.7548776662466927, 0.5698402909980532])
"""Steps of an evenly spread sequence in the unit square (powers of the inverse plastic number)."""


def surface_points(mesh: Mesh) -> Floats:
    """Points (N,3) spread evenly over the surface, and vertices; the same for the same mesh."""
    a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
    area = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    number = np.arange(SAMPLES)
    at = np.minimum(np.searchsorted(area, (number + 0.5) / SAMPLES * area[-1]), len(area) - 1)
    u, v = (number[:, None] * _STEPS % 1.0).T[:, :, None]
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    inner = a[at] + u * (b - a)[at] + v * (c - a)[at]
    return np.concatenate([inner, mesh.vertices[:: -(-len(mesh.vertices) // SAMPLES)]])


def gaps_between(meshes: Sequence[Mesh]) -> list[tuple[int, int, float]]:
    """(number, higher number, metres between the nearest points) of every pair of meshes."""
    clouds = [surface_points(mesh) for mesh in meshes]
    trees = [cKDTree(cloud) for cloud in clouds]
    found = []
    for i, k in combinations(range(len(meshes)), 2):
        low, high = clouds[k].min(0), clouds[k].max(0)
        to_box = np.linalg.norm(np.maximum(np.maximum(low - clouds[i], clouds[i] - high), 0), axis=1)
        # No point is nearer than the box around the other mesh: what is farther than a distance already met is left out.
        met = float(trees[k].query(clouds[i][np.argpartition(to_box, PROBES)[:PROBES]])[0].min())
        near = clouds[i][to_box <= met]
        found.append((i, k, round(min(met, float(trees[k].query(near)[0].min(initial=met))), 4)))
    return found


def longest_edge(mesh: Mesh) -> float:
    """Metres of the longest edge of the smallest upright box around a mesh, whichever way it is turned."""
    plan, height = mesh.vertices[:, :2], float(np.ptp(mesh.vertices[:, 2]))
    try:
        outline = plan[ConvexHull(plan).vertices]
    except QhullError:  # an upright pane is a line on the plan
        return max(float(np.linalg.norm(np.ptp(plan, axis=0))), height)
    sides = np.roll(outline, -1, axis=0) - outline
    angles = np.arctan2(sides[:, 1], sides[:, 0])
    turns = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], 1).reshape(-1, 2, 2)
    extents = np.ptp(np.einsum("ack,nk->anc", turns, outline), axis=1)
    smallest = extents[int(extents.prod(1).argmin())]
    return max(float(smallest.max()), height)
