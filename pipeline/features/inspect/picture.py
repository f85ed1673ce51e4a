"""One picture of what teachers say about a scene: its views, where the cells lie in the room, and per teacher its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import StoreError
from pipeline.core.options import did_you_mean
from pipeline.core.plots import new_figure, styled
from pipeline.features.inspect.colors import SAMPLE, alignment, principal_basis, standardised, to_colors
from pipeline.features.inspect.statistics import by_store
from pipeline.features.store import FeatureReader
from pipeline.scenes import geometry
from pipeline.scenes.grid import TokenGrid, seen_cells
from pipeline.scenes.types import Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.scenes.index import SceneIndex


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``colors`` (V,G,K,3) of the shown views on ``grid``; ``fit`` is the share of places in the colours (R^2).

    Padding and cells that the teacher did not see are white and take no part in basis, scale and fit.
    """

    label: str
    grid: TokenGrid
    colors: NDArray[np.float64]
    fit: float | None = None


def choose_scene(readers: Sequence[FeatureReader], index: SceneIndex, wanted: str | None) -> str:
    """Return ``wanted``, or the first scene in index order that every store has. Raise StoreError when there is none."""
    shared = set(index.records).intersection(*(reader.scene_ids for reader in readers))
    if wanted is not None and wanted not in shared:
        near = did_you_mean(wanted, sorted(shared))
        raise StoreError(f"not every store and the index have scene {wanted!r}{near}", allowed=f"{len(shared)} scenes")
    if not shared:
        raise StoreError(
            "the stores have no scene in common with the index",
            where=str(index.path),
            fix="give manifests of one dataset, all shards of every teacher, and its --scenes",
        )
    return wanted or next(scene_id for scene_id in index.records if scene_id in shared)


def rows_of_scene(scene: Scene, manifests: Sequence[Path], shown: Sequence[int]) -> list[Row]:
    """Return the world row on the first teacher's grid, then one row per teacher and layer."""
    rows: list[Row] = []
    for (_, teacher), paths in by_store(manifests).items():
        reader = FeatureReader(paths)
        means, valid = cell_places(scene, reader.grid)
        if not rows:
            colors = to_colors(means.astype(np.float64), valid)
            rows.append(Row("where", reader.grid, colors[list(shown)]))
        for layer in reader.layers:
            label = teacher if len(reader.layers) == 1 else f"{teacher}\n{layer}"
            rows.append(_feature_row(label, FeatureReader(paths, layer=layer), scene, means, valid, shown))
    return rows


def cell_places(scene: Scene, grid: TokenGrid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the mean world point (V,G,K,3) in metres of every cell, and whether it has any valid depth (V,G,K)."""
    record = scene.record
    points, valid = geometry.unproject(scene.depth_m, record.depth_intrinsics, record.world_from_camera)
    means, share = geometry.cell_means(points, valid, grid)
    return means, share > 0


def _feature_row(
    label: str,
    reader: FeatureReader,
    scene: Scene,
    means: NDArray[np.float32],
    valid: NDArray[np.bool_],
    shown: Sequence[int],
) -> Row:
    """Build a feature row from two passes over the views (basis, projections): memory is two views and 3 numbers per cell."""
    if reader.frame_ids(scene.scene_id) != scene.record.frame_ids:
        reader.read_stored(scene.scene_id, scene.record.frame_ids)  # raises with the first frame that differs
    views, cells = len(scene.record.frame_ids), reader.grid.count
    seen = seen_cells(reader.grid, reader.seen(scene.scene_id))
    valid = valid & seen
    step, used = max(1, views * cells // SAMPLE), seen.reshape(-1)
    tokens = [_tokens(reader, scene, view)[used][view % step :: step] for view in range(views)]
    mean, basis = principal_basis(np.concatenate(tokens))
    projected = np.concatenate([(_tokens(reader, scene, view) - mean) @ basis for view in range(views)])
    flat_valid = valid.reshape(-1)
    world = standardised(means.reshape(-1, 3).astype(np.float64), flat_valid)
    turned = projected @ alignment(projected, world, flat_valid)
    everywhere = np.broadcast_to(seen, valid.shape)
    colors = np.where(everywhere[..., None], to_colors(turned.reshape(*means.shape), everywhere), 1.0)
    return Row(label, reader.grid, colors[list(shown)], _explained(turned[flat_valid], world[flat_valid]))


def _tokens(reader: FeatureReader, scene: Scene, view: int) -> NDArray[np.float32]:
    return reader.read_view(scene.scene_id, view).tokens.reshape(-1, reader.dim)


def _explained(values: NDArray[np.float64], world: NDArray[np.float64]) -> float | None:
    """Return the share of variance in world coordinates that the three components explain linearly (mean R^2 of the axes)."""
    if len(values) < 5:
        return None
    design = np.column_stack([values, np.ones(len(values))])
    residual = world - design @ np.linalg.lstsq(design, world, rcond=None)[0]
    moving = world.var(0) > 1e-9
    return float(np.mean(1 - residual.var(0)[moving] / world.var(0)[moving])) if moving.any() else None


@styled
def draw(scene: Scene, rows: Sequence[Row], shown: Sequence[int]) -> Figure:
    """Draw views in the first row, then ``rows``: cells at the place they cover, white outside a grid's window."""
    height, width = scene.record.image_size
    tall = 1.9 * height / width + 0.12
    figure, axes = new_figure(1 + len(rows), len(shown), 1.9 * len(shown) + 0.9, tall * (1 + len(rows)) + 0.3)
    for column, view in enumerate(shown):
        axes[0, column].imshow(scene.rgb[view], extent=(0, 1, 1, 0), aspect="auto")
        axes[0, column].set_title(f"view {scene.record.frame_ids[view]}", loc="left", fontsize=8.5, fontweight="normal")
        for number, row in enumerate(rows, start=1):
            x0, y0, x1, y1 = row.grid.window
            extent = (x0, x1, y1, y0)
            axes[number, column].imshow(row.colors[column], extent=extent, aspect="auto", interpolation="nearest")
    for axis in axes.flat:
        _bare(axis)
    axes[0, 0].set_ylabel("picture", fontsize=9)
    for number, row in enumerate(rows, start=1):
        fit = "" if row.fit is None else f"\n$R^2$ {row.fit:.2f}"
        axes[number, 0].set_ylabel(row.label + fit, fontsize=9)
    figure.suptitle(
        f"{scene.scene_id}: first three principal components, turned towards x, y, z of the room (where; grey: no depth)\n"
        "equal colours mean equal features within a row; $R^2$: share of the cells' places that the three colours explain",
        fontsize=9,
    )
    return figure


def _bare(axis: Any) -> None:
    axis.set_xlim(0, 1)
    axis.set_ylim(1, 0)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def picture(manifests: Sequence[Path], index: SceneIndex, scene_id: str | None, views: int) -> tuple[str, bytes]:
    """Draw one scene of one dataset's stores: (scene, PNG). Raise StoreError for several datasets and for missing scenes."""
    stores = by_store(manifests)
    datasets = {dataset for dataset, _ in stores}
    if datasets != {index.dataset}:
        raise StoreError(f"features of {', '.join(sorted(datasets))} and scenes of {index.dataset}", allowed="one dataset")
    chosen = choose_scene([FeatureReader(paths) for paths in stores.values()], index, scene_id)
    scene = index.load(chosen)
    count = len(scene.record.frame_ids)
    shown = sorted({int(i) for i in np.linspace(0, count - 1, min(views, count))})
    image: bytes = draw(scene, rows_of_scene(scene, manifests, shown), shown)
    return chosen, image
