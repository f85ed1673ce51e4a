"""What a scene's geometry is worth, in figures: what invalid depth would do to cell means, and how well views agree.

docs/geometry.md shows these figures for real sensor frames, and test_real_depth.py checks them. The unmasked mean is the
reference's: a pixel without depth unprojects to the camera's centre and is averaged into its cell with all others.

Run: python tests/parity/depth_figures.py results/scenes/NAME/manifest.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.scenes.depth_quality import depth_differences
from pipeline.scenes.geometry import cell_means, unproject, voxel_ids
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Scene

REFERENCE_PX = 384
"""Side of the square to which the reference resizes depth (nearest pixel) before it averages."""
REFERENCE_USED_PX = 378
"""Rows and columns of it that lie under its tokens."""
AGREES_M = 0.05


@dataclass(frozen=True, slots=True)
class InvalidDepth:
    """Effect of averaging invalid pixels into the ``cells`` of all views.

    Shares of all cells: ``holding`` at least one invalid pixel, ``empty`` of valid ones, ``moved`` to another voxel by the
    unmasked mean (an empty cell, which the unmasked mean puts at the camera's centre, counts as moved). Distances in
    metres between unmasked and masked mean, over the cells that are not empty: ``shift_mean_m``, ``shift_p95_m``.
    """

    cells: int
    holding: float
    empty: float
    moved: float
    shift_mean_m: float
    shift_p95_m: float


def invalid_depth(scene: Scene, side: int, *, voxel_m: float = 0.1, as_reference: bool = False) -> InvalidDepth:
    """Effect on ``side`` x ``side`` cells over the whole image, at full resolution.

    ``as_reference``: depth taken at 384x384 nearest pixels of which 378x378 are cut into cells (reference_faults A2).
    """
    record = scene.record
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    if as_reference:
        rows, cols = (np.arange(REFERENCE_USED_PX) * size // REFERENCE_PX for size in record.depth_size)
        points, valid = points[:, rows][:, :, cols], valid[:, rows][:, :, cols]
    masked, share = cell_means(points, valid, TokenGrid(side, side))
    unmasked = unmasked_means(masked, share, record.world_from_camera)
    there = share > 0
    shift_m = np.linalg.norm(unmasked - masked, axis=-1)[there]
    moved = voxel_ids(masked, there, voxel_m) != voxel_ids(unmasked, np.ones_like(there), voxel_m)
    return InvalidDepth(
        cells=share.size,
        holding=float((share < 1).mean()),
        empty=float((~there).mean()),
        moved=float(moved.mean()),
        shift_mean_m=float(shift_m.mean()) if shift_m.size else 0.0,
        shift_p95_m=float(np.percentile(shift_m, 95)) if shift_m.size else 0.0,
    )


def unmasked_means(
    masked: NDArray[np.float32], share: NDArray[np.float32], world_from_camera: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The reference's means (V,G,K,3): invalid pixels, a share of ``1 - share`` (V,G,K), stand at the camera's centre."""
    centre = world_from_camera[:, None, None, :3, 3]
    return (masked * share[..., None] + centre * (1 - share[..., None])).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Points of one view seen by another.

    ``overlap``: share of the first view's valid pixels that fall into the second's image. ``measured``: share of those that
    have valid depth there. Over these, ``median_m``, ``p95_m``: absolute difference of projected and measured depth;
    ``agree``: share of differences below 5 cm (the rest is mostly occlusion).
    """

    pixels: int
    overlap: float
    measured: float
    median_m: float
    p95_m: float
    agree: float


def agreement(scene: Scene, pairs: Iterable[tuple[int, int]]) -> Agreement:
    """Figures pooled over (first, second) pairs of views; distances are NaN when nothing overlaps."""
    record = scene.record
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    pixels, inside, differences = 0, 0, [np.empty(0)]
    for first, second in pairs:
        seen = points[first][valid[first]]
        landed, difference, _ = depth_differences(
            seen, scene.depth_m[second], record.depth_intrinsics, record.world_from_camera[second]
        )
        pixels, inside = pixels + len(seen), inside + landed
        differences.append(np.abs(difference))
    errors = np.concatenate(differences)
    median, p95 = np.percentile(errors, (50, 95)) if errors.size else (np.nan, np.nan)
    return Agreement(
        pixels=pixels,
        overlap=inside / max(1, pixels),
        measured=errors.size / max(1, inside),
        median_m=float(median),
        p95_m=float(p95),
        agree=float((errors < AGREES_M).mean()) if errors.size else 0.0,
    )


def shared_cells(scene: Scene, side: int, *, voxel_m: float = 0.1, masked: bool = True) -> float:
    """Share of ``side`` x ``side`` cells that lie in one voxel with a cell of another view: what correspondence can use.

    ``masked`` False: with the reference's means, where every empty cell lies at its camera.
    """
    record = scene.record
    points, valid = unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    means, share = cell_means(points, valid, TokenGrid(side, side))
    there = share > 0
    if not masked:
        means, there = unmasked_means(means, share, record.world_from_camera), np.ones_like(there)
    ids = voxel_ids(means, there, voxel_m).reshape(len(share), -1)
    views_of: dict[int, set[int]] = {}
    for view, row in enumerate(ids):
        for voxel in np.unique(row[row >= 0]).tolist():
            views_of.setdefault(voxel, set()).add(view)
    common = [voxel for voxel, views in views_of.items() if len(views) > 1]
    return float(np.isin(ids, common).mean())


def describe(manifest: Path | str, *, sides: Iterable[int] = (27, 14)) -> str:
    """All figures of all scenes of a prepared dataset, as text."""
    index = SceneIndex(Path(manifest))
    lines = []
    for record in index:
        scene = index.load(record.scene_id)
        lines.append(f"{record.scene_id}: {len(record.frame_ids)} views, {(scene.depth_m <= 0).mean():.1%} of pixels invalid")
        for side in sides:
            for name, as_reference in (("whole image", False), ("reference sampling", True)):
                f = invalid_depth(scene, side, as_reference=as_reference)
                lines.append(
                    f"  {side}x{side} cells, {name}: {f.holding:.1%} hold invalid pixels, {f.empty:.1%} hold no other, "
                    f"the unmasked mean moves {f.moved:.1%} to another voxel, "
                    f"by {100 * f.shift_mean_m:.1f} cm (p95 {100 * f.shift_p95_m:.0f} cm)"
                )
            own, other = (shared_cells(scene, side, masked=m) for m in (True, False))
            lines.append(f"  {side}x{side} cells that share a voxel with another view: {own:.1%} masked, {other:.1%} unmasked")
        pairs = agreement(scene, permutations(range(len(record.frame_ids)), 2))
        lines.append(
            f"  pairs of views: overlap {pairs.overlap:.1%}, measured {pairs.measured:.1%}, difference of depth median "
            f"{1000 * pairs.median_m:.1f} mm, p95 {1000 * pairs.p95_m:.0f} mm, {pairs.agree:.1%} below 5 cm"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(describe(sys.argv[1]))
