"""Pictures of scenes: views, boxes projected into them, and teacher features as colours (first three principal components)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.plots import new_figure, styled
from pipeline.report.figures import teacher_colors
from pipeline.report.inputs import Question
from pipeline.scenes.grid import seen_cells
from pipeline.scenes.types import Scene, SceneRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.teachers.base import TeacherFeatures

_NEAR_M = 0.05
_EDGES = tuple((a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1)


def box_corners(box: Sequence[float]) -> NDArray[np.float64]:
    """Return the 8 corners (8,3) of [cx,cy,cz,dx,dy,dz], bit k of the corner's number = upper side of axis k."""
    values = np.asarray(box, dtype=np.float64)
    signs = np.array([[(i >> axis & 1) - 0.5 for axis in range(3)] for i in range(8)])
    return np.asarray(values[:3] + signs * values[3:6])


def project(points: NDArray[np.float64], record: SceneRecord, view: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project world points (n,3) to pixels (n,2) of a view's colour image, and their depth (n,) in metres."""
    camera_from_world = np.linalg.inv(record.world_from_camera[view])
    camera = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    depth = camera[:, 2]
    pixels = camera @ record.intrinsics.T
    return pixels[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[:, None], depth


def best_view(record: SceneRecord, boxes: Sequence[Sequence[float]]) -> int:
    """Return the view with most corners of ``boxes`` near its centre; 0 when there are none."""
    if not boxes:
        return 0
    corners = np.concatenate([box_corners(box) for box in boxes])
    height, width = record.image_size
    scores = []
    for view in range(len(record.frame_ids)):
        pixels, depth = project(corners, record, view)
        inside = (depth > _NEAR_M) & (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
        offset = np.abs(pixels / [width, height] - 0.5).max(1)
        scores.append(float(np.where(inside, 1.0 - offset, 0.0).sum()))
    return int(np.argmax(scores))


def _draw_box(axis: Axes, record: SceneRecord, view: int, box: Sequence[float], **style: Any) -> None:
    """Draw the edges of a box; parts behind the camera are left out."""
    corners = box_corners(box)
    steps = np.linspace(0, 1, 24)[:, None]
    for a, b in _EDGES:
        pixels, depth = project(corners[a] * (1 - steps) + corners[b] * steps, record, view)
        pixels[depth < _NEAR_M] = np.nan
        axis.plot(pixels[:, 0], pixels[:, 1], **style)
        style.pop("label", None)


def _show(axis: Axes, image: NDArray[Any], title: str) -> None:
    axis.imshow(image, interpolation="nearest" if image.shape[0] < 64 else "antialiased")
    axis.set_title(title, loc="left", fontsize=8.5, fontweight="normal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


@styled
def scene_strip(scene: Scene, question: Question | None, teachers: Sequence[str], views: int = 3) -> Figure:
    """Draw some views of a scene and, for a grounding question, its target (white) and every teacher's box in the best view."""
    shown = sorted({int(i) for i in np.linspace(0, len(scene.rgb) - 1, views)})
    columns = len(shown) + (question is not None)
    height, width = scene.record.image_size
    figure, axes = new_figure(1, columns, 2.75 * columns, 2.75 * height / width + 0.45)
    for axis, view in zip(axes.flat, shown, strict=False):
        _show(axis, scene.rgb[view], f"view {scene.record.frame_ids[view]}")
    if question is not None:
        _grounding_view(axes.flat[-1], scene, question, teachers)
    return figure


def _grounding_view(axis: Axes, scene: Scene, question: Question, teachers: Sequence[str]) -> None:
    view = best_view(scene.record, question.targets)
    _show(axis, scene.rgb[view], f"{question.benchmark}: boxes in view {scene.record.frame_ids[view]}")
    for target in question.targets:
        for color, width in (("#111827", 4.2), ("white", 2.4)):
            _draw_box(axis, scene.record, view, target, color=color, linewidth=width, solid_capstyle="round")
    colors = teacher_colors(teachers)
    for i, (teacher, said) in enumerate(question.said.items()):
        for box in said.boxes[:3]:
            _draw_box(axis, scene.record, view, box, color=colors[teacher], linewidth=1.6, linestyle=(3 * i, (4, 2)))
    height, width = scene.record.image_size
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def principal_colors(tokens: NDArray[np.float32], seen: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Turn tokens (V,G,K,D) into colours (V,G,K,3) in [0,1]: first three principal components over all views of the scene.

    One basis and one scale for all views, so that one colour means one feature; signs are fixed by the largest loading.
    Cells that are not ``seen`` (G,K) are white.
    """
    if seen is not None and not seen.all():
        colors = np.ones((*tokens.shape[:3], 3))
        if seen.any():
            colors[:, seen] = principal_colors(tokens[:, seen][:, None])[:, 0]
        return colors
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(0)
    values, vectors = np.linalg.eigh(flat.T @ flat)
    basis = vectors[:, np.argsort(values)[::-1][:3]]
    basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(basis.shape[1])])
    projected = flat @ basis
    if projected.shape[1] < 3:
        projected = np.pad(projected, ((0, 0), (0, 3 - projected.shape[1])))
    low, high = np.quantile(projected, [0.02, 0.98], axis=0)
    scaled = np.clip((projected - low) / np.where(high - low > 1e-12, high - low, 1.0), 0, 1)
    return np.asarray(scaled.reshape(*tokens.shape[:-1], 3))


@styled
def feature_grid(scene: Scene, features: Mapping[str, TeacherFeatures], views: int = 6) -> Figure:
    """Draw views of a scene in the first row, then each teacher's features as colours, every cell where it looks."""
    shown = sorted({int(i) for i in np.linspace(0, len(scene.rgb) - 1, views)})
    height, width = scene.record.image_size
    figure, axes = new_figure(
        1 + len(features), len(shown), 1.75 * len(shown) + 0.7, (1.75 * height / width + 0.1) * (1 + len(features))
    )
    colors = {teacher: principal_colors(f.tokens, seen_cells(f.grid, f.window)) for teacher, f in features.items()}
    for column, view in enumerate(shown):
        _show(axes[0, column], scene.rgb[view], f"view {scene.record.frame_ids[view]}")
        for row, (teacher, found) in enumerate(features.items(), start=1):
            image = np.clip(colors[teacher][view], 0, 1)
            x0, y0, x1, y1 = found.grid.window
            extent = (x0 * width, x1 * width, y1 * height, y0 * height)
            axes[row, column].imshow(image, interpolation="nearest", extent=extent)
            axes[row, column].set_xlim(0, width)
            axes[row, column].set_ylim(height, 0)
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
            axes[row, column].spines[:].set_visible(False)
    for row, teacher in enumerate(features, start=1):
        axes[row, 0].set_ylabel(teacher, fontsize=9)
    return figure
