"""Whether a scene's depth can be depth in metres: figures per scene, what is refused, what is counted as doubtful.

Every scene comes through here when it is written. Few pixels of few views are looked at, so that it costs little beside making
a scene. Thresholds stand between what was measured (docs/geometry.md): right data of built-in rooms, 3D-FRONT and a Kinect, and
the same data with poses of the neighbour, inverted poses, or another unit of depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import FrameError
from pipeline.core.notes import Note
from pipeline.scenes.types import DepthFigures, SceneRecord

VIEWS = 8
"""Most views that are looked at: of more, four pairs of neighbours spread over the scene, since neighbours overlap."""
GRID = (18, 24)
"""Rows and columns of pixels of a view that ranges are taken of and that are looked for in the other views."""
COMPARED_LEAST = 200
"""Pixels that must be measured in another view, too, before views can be said to agree or not."""
AGREES_M, AGREES_SHARE = 0.05, 0.03
"""Two views agree about a point when their depths differ by less than 5 cm or 3 % (a Kinect's noise at 4 m is 3 cm)."""

IMPOSSIBLE_FAR_M, IMPOSSIBLE_MEDIAN_M = 0.3, 25.0
"""Refused: nothing is farther than the first (pictures of 8 bits end at 0.255 m), or half is farther than the second."""
DOUBTFUL_MEDIAN_M = (0.5, 8.0)
"""Medians of right data: 1.8 to 4.4 m. Sensors of rooms begin at 0.4 m and end at 5 to 10 m."""
FLAT_M = 0.01
"""Doubtful: the 99th percentile is no more than this beyond the first."""
DOUBTFUL_VALID = 1 / 3
"""Right data: 0.83 to 0.98."""
DOUBTFUL_THROUGH, DOUBTFUL_AGREE = 0.2, 0.2
"""Doubtful: a larger share of points that another view sees through, or a smaller share that agrees. Right data: at most 0.02
and at least 0.60. Poses of the neighbour in half of the views: through at least 0.29; depth five times too small: agree at
most 0.13."""


def with_depth_figures(record: SceneRecord, depth_m: Callable[[int], NDArray[np.float32]], *, where: str) -> SceneRecord:
    """The record with its depth's figures; ``depth_m(v)`` reads view v's depth (H,W) in metres.

    Raises FrameError, naming ``where``, for depth that cannot be that of a room.
    """
    views = looked_at(len(record.frame_ids))
    depth = np.stack([depth_m(view) for view in views])
    if not (depth > 0).any() and not any((depth_m(v) > 0).any() for v in range(len(record.frame_ids)) if v not in views):
        raise FrameError(
            f"no pixel of the {len(record.frame_ids)} depth images holds a measurement: all are 0",
            where=where,
            allowed="depth in millimetres, 0 only where nothing was measured",
            fix="export the depth images again, or leave the scene out",
        )
    figures = _figures(depth, record.depth_intrinsics, record.world_from_camera[list(views)])
    _refuse_impossible(figures, where)
    return replace(record, depth=figures)


def looked_at(views: int) -> tuple[int, ...]:
    """Return which of a scene's views are looked at."""
    if views <= VIEWS:
        return tuple(range(views))
    first = np.linspace(0, views - 2, VIEWS // 2).astype(int).tolist()
    return tuple(view for one in first for view in (one, one + 1))


def _refuse_impossible(figures: DepthFigures, where: str) -> None:
    if figures.far_m is None or figures.median_m is None:
        return
    small, large = figures.far_m < IMPOSSIBLE_FAR_M, figures.median_m > IMPOSSIBLE_MEDIAN_M
    if small or large:
        raise FrameError(
            f"depth cannot be that of a room: median {figures.median_m:.2f} m, 99 % nearer than {figures.far_m:.2f} m",
            where=where,
            allowed=f"99th percentile at least {IMPOSSIBLE_FAR_M} m, median at most {IMPOSSIBLE_MEDIAN_M:.0f} m",
            fix=("pictures of depth for looking at are no measurement: export" if small else "correct the unit: export")
            + " depth in millimetres",
        )


def _figures(depth_m: NDArray[np.float32], camera: NDArray[np.float64], poses: NDArray[np.float64]) -> DepthFigures:
    """Figures of the depth (V,H,W) of the views that are looked at."""
    rows, columns = (((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(GRID, depth_m.shape[1:], strict=True))
    sampled = depth_m[:, rows][:, :, columns]
    valid, shares = sampled[sampled > 0], (depth_m > 0).mean((1, 2))
    near, median, far = (round(float(v), 3) for v in np.percentile(valid, (1, 50, 99))) if valid.size else (None,) * 3
    differences, measured = _compared(depth_m, camera, poses, rows, columns)
    tolerance = np.maximum(AGREES_M, AGREES_SHARE * measured)
    enough = len(measured) >= COMPARED_LEAST
    return DepthFigures(
        valid=round(float(shares.mean()), 4),
        blank=int((shares == 0).sum()),
        near_m=near,
        median_m=median,
        far_m=far,
        compared=len(measured),
        agree=round(float((np.abs(differences) <= tolerance).mean()), 4) if enough else None,
        through=round(float((differences < -tolerance).mean()), 4) if enough else None,
    )


def _compared(
    depth_m: NDArray[np.float32],
    camera: NDArray[np.float64],
    poses: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Differences and depths (M,) as of ``depth_differences`` over all ordered pairs of views, for the sampled pixels."""
    points, valid = _sampled_points(depth_m, camera, poses, rows, columns)
    found = []
    for view, pose in enumerate(poses):
        others = np.arange(len(poses)) != view
        _, difference, measured = depth_differences(points[others][valid[others]], depth_m[view], camera, pose)
        found.append((difference, measured))
    return np.concatenate([one for one, _ in found]), np.concatenate([two for _, two in found])


def _sampled_points(
    depth_m: NDArray[np.float32],
    camera: NDArray[np.float64],
    poses: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """World points (V,R,C,3) of the pixels at ``rows`` and ``columns``, and which of them have depth."""
    z = depth_m[:, rows][:, :, columns].astype(np.float64)
    x, y = (columns - camera[0, 2]) / camera[0, 0], (rows - camera[1, 2]) / camera[1, 1]
    local = np.stack([z * x, z * y[:, None], z], axis=-1)
    return np.einsum("vij,vrcj->vrci", poses[:, :3, :3], local) + poses[:, None, None, :3, 3], z > 0


def depth_differences(
    seen: NDArray[np.floating], depth_m: NDArray[np.float32], camera: NDArray[np.float64], pose: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """World points (N,3) looked for in a view: how many fall into its image, and for those whose nearest pixel has depth their
    distance minus that depth (M,), and that depth (M,)."""
    camera_from_world = np.linalg.inv(pose)
    local = seen.astype(np.float64) @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    local = local[local[:, 2] > 1e-6]
    column, row = (np.rint(camera[i, i] * local[:, i] / local[:, 2] + camera[i, 2]) for i in (0, 1))
    inside = (column >= 0) & (column < depth_m.shape[1]) & (row >= 0) & (row < depth_m.shape[0])
    measured = depth_m[row[inside].astype(np.int64), column[inside].astype(np.int64)].astype(np.float64)
    there = measured > 0
    return int(inside.sum()), (local[inside, 2] - measured)[there], measured[there]


def depth_notes(records: Sequence[SceneRecord]) -> list[Note]:
    """Scenes whose depth is doubtful, counted by what is doubtful."""
    doubts: dict[str, list[str]] = {}
    for record in records:
        for kind in _doubts(record.depth) if record.depth is not None else ():
            doubts.setdefault(kind, []).append(record.scene_id)
    low, high = DOUBTFUL_MEDIAN_M
    texts = {
        "depth_blank": "scenes with views that have no depth at all (of those looked at)",
        "depth_sparse": f"scenes with valid depth in less than {DOUBTFUL_VALID:.0%} of the pixels",
        "depth_range": f"scenes whose depth is flat or has a median below {low} m or above {high:.0f} m (is its unit right?)",
        "depth_disagrees": "scenes whose views contradict each other: poses, camera or unit of depth are not right",
    }
    return [Note(k, texts[k], len(doubts[k]), len(records), tuple(doubts[k])) for k in texts if k in doubts]


def _doubts(figures: DepthFigures) -> list[str]:
    found = ["depth_blank"] if figures.blank else []
    found += ["depth_sparse"] if figures.valid < DOUBTFUL_VALID else []
    if figures.near_m is not None and figures.median_m is not None and figures.far_m is not None:
        plausible = DOUBTFUL_MEDIAN_M[0] <= figures.median_m <= DOUBTFUL_MEDIAN_M[1]
        found += [] if plausible and figures.far_m - figures.near_m > FLAT_M else ["depth_range"]
    if figures.agree is not None and figures.through is not None:
        doubtful = figures.through > DOUBTFUL_THROUGH or figures.agree < DOUBTFUL_AGREE
        found += ["depth_disagrees"] if doubtful else []
    return found


def depth_summary(records: Sequence[SceneRecord]) -> str:
    """One line about the depth of all scenes that have figures; empty where none has."""
    known = [record.depth for record in records if record.depth is not None]
    agree = [one.agree for one in known if one.agree is not None]
    median = [one.median_m for one in known if one.median_m is not None]
    if not median:
        return ""
    parts = [
        f"depth of {len(known):,} scenes: valid {min(d.valid for d in known):.0%} to {max(d.valid for d in known):.0%}",
        f"median {min(median):.2f} to {max(median):.2f} m",
        f"views agree about {min(agree):.0%} to {max(agree):.0%} of the points" if agree else "views do not overlap",
    ]
    return ", ".join(parts)
