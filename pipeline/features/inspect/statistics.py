"""Statistics of feature stores: sizes from the manifests, statistics from a bounded sample of views."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import StoreError
from pipeline.core.text_tables import render_table
from pipeline.features.manifest import ViewManifest, read_store_manifest
from pipeline.features.store import FeatureReader
from pipeline.scenes.grid import seen_cells

DEAD = 1e-4
"""A channel is dead when its standard deviation is below this share of the root mean square over all channels'."""


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """One layer of one store, without padding and cells that the teacher did not see (grid.py).

    Cosines are means over pairs of tokens, of tokens that are not zero.

    ``neighbour_cosine``: cells side by side or above each other; ``distant_cosine``: cells of the same place in the picture,
    of different views. Features that tell places apart have the first well above the second.
    """

    layer: str
    width: int
    mean_norm: float
    dead_channels: float
    neighbour_cosine: float
    distant_cosine: float


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """All shards of one dataset x teacher. ``error``: largest 1 - cosine that storing cost a token (stated or measured)."""

    dataset: str
    teacher: str
    shards: int
    scenes: int
    views: int
    grid: str
    dtype: str
    extras: tuple[str, ...]
    bytes_per_scene: float
    error: float
    sampled_views: int
    layers: tuple[LayerStatistics, ...]


@dataclass(slots=True)
class _Sums:
    """Sums over the sampled tokens of one layer."""

    count: int = 0
    norms: float = 0.0
    values: NDArray[np.float64] | float = 0.0
    squares: NDArray[np.float64] | float = 0.0
    near: list[float] = field(default_factory=list)
    far: list[float] = field(default_factory=list)
    previous: NDArray[np.float32] | None = None

    def add(self, tokens: NDArray[np.float32], seen: NDArray[np.bool_]) -> None:
        """Add one view's tokens (G,K,D); ``seen`` (G,K) marks those that count."""
        flat = tokens[seen]
        norms = np.linalg.norm(flat, axis=1)
        self.count += len(flat)
        self.norms += float(norms.sum())
        self.values = self.values + flat.sum(0, dtype=np.float64)
        self.squares = self.squares + np.einsum("nd,nd->d", flat, flat, dtype=np.float64)
        units = np.zeros_like(tokens)  # zero: in no pair
        units[seen] = flat / np.maximum(norms, 1e-30)[:, None]
        pairs = [(units[:, 1:], units[:, :-1]), (units[1:], units[:-1])]
        self.near += [value for a, b in pairs for value in _cosines(a, b)]
        if self.previous is not None:
            self.far += _cosines(units, self.previous)
        self.previous = units

    def statistics(self, layer: str, width: int) -> LayerStatistics:
        if not self.count:  # a shard may have no scene
            return LayerStatistics(layer, width, *[float("nan")] * 4)
        mean = self.values / self.count
        deviation = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0.0))
        limit = DEAD * float(np.sqrt(np.mean(deviation**2)))
        return LayerStatistics(
            layer=layer,
            width=width,
            mean_norm=self.norms / self.count,
            dead_channels=float(np.mean(deviation <= limit)),
            neighbour_cosine=_mean(self.near),
            distant_cosine=_mean(self.far),
        )


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> list[float]:
    """Return [mean cosine] of pairs of unit tokens (...,D), or [] without a pair of non-zero tokens."""
    used = (np.abs(a).max(-1, initial=0) > 0) & (np.abs(b).max(-1, initial=0) > 0)
    return [float(np.einsum("...d,...d->...", a, b)[used].mean())] if used.any() else []


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def by_store(manifests: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """Group manifests by (dataset, teacher), in the order given. Raise StoreError for none, or for an unreadable one."""
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in manifests:
        spec = read_store_manifest(path).spec
        groups[spec.dataset, spec.teacher].append(path)
    if not groups:
        raise StoreError("no feature manifests were given", fix="name results/features/*/*/shard*/manifest.json")
    return dict(groups)


def sample(reader: FeatureReader, views: int) -> Iterator[tuple[str, int]]:
    """Yield up to ``views`` pairs (scene, view), from up to 16 scenes spread evenly over the store, scene by scene."""
    scenes = reader.scene_ids
    chosen = (
        [scenes[i] for i in sorted({int(i) for i in np.linspace(0, len(scenes) - 1, min(16, len(scenes)))})] if scenes else []
    )
    each = max(1, views // max(len(chosen), 1))
    for scene in chosen:
        count = len(reader.frame_ids(scene))
        for view in sorted({int(i) for i in np.linspace(0, count - 1, min(each, count))}):
            yield scene, view


def store_statistics(manifests: Sequence[Path], *, views: int = 32) -> StoreStatistics:
    """Compute the statistics of one store from its manifests and ``views`` views read one by one (memory: two views)."""
    reader = FeatureReader(manifests)
    spec, scenes = reader.spec, reader.scene_ids
    sums = {layer: _Sums() for layer in reader.layers}
    extras: set[str] = set()
    last, sampled = "", 0
    for scene, view in sample(reader, views):
        found = reader.read_view(scene, view)
        extras |= {name for name in ("confidence", "depth", "pose") if getattr(found, name) is not None}
        for layer, total in sums.items():
            total.previous = total.previous if scene == last else None
            total.add(found.tokens[0][..., spec.columns(layer)], seen_cells(found.grid, found.window))
        last, sampled = scene, sampled + 1
    derived = any(isinstance(read_store_manifest(path), ViewManifest) for path in manifests)
    grid = f"{spec.rows} x {spec.cols}" + (f" of {spec.native.rows} x {spec.native.cols}" if spec.native else "")
    return StoreStatistics(
        dataset=spec.dataset,
        teacher=spec.teacher,
        shards=len(manifests),
        scenes=len(scenes),
        views=sum(len(reader.frame_ids(scene)) for scene in scenes),
        grid=grid,
        dtype=spec.dtype + (" packed" if spec.compression != "none" else "") + (" (derived)" if derived else ""),
        extras=tuple(sorted(extras)),
        bytes_per_scene=0.0 if derived or not scenes else float(np.mean([reader.stored_bytes(s) for s in scenes])),
        error=max((reader.cosine_error(scene) for scene in scenes), default=0.0),
        sampled_views=sampled,
        layers=tuple(total.statistics(layer, reader.layers[layer]) for layer, total in sums.items()),
    )


def to_json(stores: Sequence[StoreStatistics]) -> list[dict[str, Any]]:
    """Return the statistics as JSON content; a figure that could not be computed is null."""
    return [_without_nan(asdict(store)) for store in stores]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


_HEADER = ("dataset", "teacher", "layer", "shards", "scenes", "views", "grid", "width", "dtype", "beside", "MB/scene")
_FIGURES = ("norm", "dead", "neighbours", "views apart", "1-cos stored")


def text_table(stores: Sequence[StoreStatistics]) -> list[str]:
    """Return one line per store and layer, and a legend."""
    body = []
    for store in stores:
        for layer in store.layers:
            values = (layer.mean_norm, layer.dead_channels, layer.neighbour_cosine, layer.distant_cosine)
            figures = ["–" if v != v else format(v, how) for v, how in zip(values, (".3g", ".1%", ".3f", ".3f"), strict=True)]
            sizes = [str(store.shards), str(store.scenes), str(store.views), store.grid, str(layer.width), store.dtype]
            beside = " ".join(store.extras) or "–"
            megabytes = f"{store.bytes_per_scene / 1e6:.3g}"
            body.append([store.dataset, store.teacher, layer.layer, *sizes, beside, megabytes, *figures, f"{store.error:.1e}"])
    sampled = ", ".join(f"{store.teacher} {store.sampled_views}" for store in stores)
    return [
        *render_table([*_HEADER, *_FIGURES], body, left=3),
        "",
        f"Sizes are of all scenes, figures of a sample of views ({sampled}).",
        f"norm: mean length of a token; dead: channels whose standard deviation is below {DEAD:g} of the mean one;",
        "neighbours: mean cosine of adjacent cells; views apart: of cells at one place of the picture in different views;",
        "1-cos stored: the most that storing turned a token by (bfloat16: the bound; int8: measured).",
    ]
