"""Content of a feature shard: its spec, its scenes, and the views that derived teachers have instead of data.

The encoding itself is in engine.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError, StoreError
from pipeline.core.provenance import digest, seed_for
from pipeline.features.manifest import ViewEntry, ViewManifest, read_store_manifest, source_reference
from pipeline.features.spec import StoreSpec, stored_grid
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import SceneRecord
from pipeline.teachers.base import Teacher


def store_spec(spec: dict[str, Any], index: SceneIndex, teacher: Teacher, weights: str) -> StoreSpec:
    """Return the spec of a teacher's store of a dataset; ``weights`` is a digest. Raise StoreError as ``one_grid``."""
    grid, native = one_grid(spec["store"], index, spec["splits"], teacher)
    return StoreSpec(
        dataset=spec["dataset"],
        teacher=teacher.name,
        kind=spec["teacher"]["kind"],
        dim=teacher.dim,
        rows=grid.rows,
        cols=grid.cols,
        window=grid.window,
        dtype=spec["store"]["dtype"],
        options=digest(spec["teacher"]["options"]),
        weights=weights,
        feature_layer=teacher.feature_layer(),
        code=spec.get("code", ""),
        layers=tuple(teacher.layers().items()),
        member=spec["teacher"],
        native=native,
        compression=spec["store"].get("compression", "none"),
    )


def one_grid(
    store: Mapping[str, Any], index: SceneIndex, splits: Sequence[str], teacher: Teacher
) -> tuple[TokenGrid, TokenGrid | None]:
    """Return the grid of the stored tokens, and the teacher's own for the first scene when features are averaged, else None.

    Raise StoreError when these splits give several grids (images of several sizes) and the ``store`` is to
    keep its own: a store has one grid. On a student's grid all of them can be stored.
    """
    own: dict[TokenGrid, SceneRecord] = {}
    for record in _of_splits(index, splits):
        own.setdefault(teacher.grid(*record.image_size), record)
    first = next(iter(own))
    if len(own) > 1 and store.get("grid", "native") == "native":
        found = [f"{g.rows}x{g.cols} tokens of {_size(r)} pixels ({r.scene_id}, ...)" for g, r in own.items()]
        raise StoreError(
            f"images of several sizes: teacher {teacher.name!r} sees {', '.join(found)}, and a store has one grid",
            where=str(index.path),
            allowed="images of one size, or features that are averaged on a grid which does not depend on it",
            fix=f"config.yaml: features: {{grid: {{rows: {first.rows}, cols: {first.cols}}}}}",
        )
    grid, native = stored_grid(store, first)
    return grid, (first if len(own) > 1 else native)


def _size(record: SceneRecord) -> str:
    return "{}x{}".format(*record.image_size)


def _of_splits(index: SceneIndex, splits: Sequence[str]) -> list[SceneRecord]:
    """Return the splits' records in index order. Raise DataError when there is none."""
    chosen = [record for record in index if record.split in set(splits)]
    if not chosen:
        raise DataError(
            f"dataset {index.dataset!r} has no scene in the splits {', '.join(splits)}",
            where=str(index.path),
            allowed=", ".join(sorted({record.split for record in index})) or "(it has no scenes)",
            fix="config.yaml: features.splits, or the splits of the dataset",
        )
    return chosen


def shard_of(scene_id: str, shards: int) -> int:
    """Return the index (0 <= index < ``shards``) of the shard that holds ``scene_id``. Adding scenes moves no other scene."""
    return seed_for("shard", scene_id) % shards


def scenes_of_shard(scene_ids: Iterable[str], index: int, shards: int) -> list[str]:
    """Return the ids that shard ``index`` of ``shards`` holds, in the given order."""
    return [scene_id for scene_id in scene_ids if shard_of(scene_id, shards) == index]


def records_of_shard(index: SceneIndex, splits: Sequence[str], shard: int, shards: int) -> list[SceneRecord]:
    """Return the splits' records that belong to a shard, in index order. Raise DataError when the splits have no scene."""
    chosen = [record.scene_id for record in _of_splits(index, splits)]
    return [index.records[scene_id] for scene_id in scenes_of_shard(chosen, shard, shards)]


def write_view(
    index: SceneIndex, splits: Sequence[str], teacher: Teacher, sources: Sequence[Path], out: Path
) -> dict[str, Any]:
    """Write the manifest of a derived teacher: which stored scene stands in for which. No features are copied."""
    if not sources:
        raise StoreError(f"teacher {teacher.name!r} needs the features of {teacher.source()!r}", fix="pass --source MANIFEST")
    shards = [read_store_manifest(path) for path in sources]
    stored = {scene_id for shard in shards for scene_id in shard.scenes}
    scenes: dict[str, ViewEntry] = {}
    for split in dict.fromkeys(splits):
        for group in _interchangeable(index.split(split)):
            for scene_id, other in teacher.scene_map([record.scene_id for record in group]).items():
                if other not in stored:
                    raise StoreError(f"scene {other!r} is not in the features of {teacher.source()!r}", where=str(sources[0]))
                scenes[scene_id] = ViewEntry(other, index.records[scene_id].frame_ids)
    return scenes_manifest(shards[0].spec, teacher, scenes, sources, out)


def scenes_manifest(
    source: StoreSpec, teacher: Teacher, scenes: dict[str, ViewEntry], sources: Sequence[Path], out: Path
) -> dict[str, Any]:
    """Write a view over ``scenes`` with the source's spec under the derived teacher's name."""
    spec = StoreSpec.from_json(
        source.to_json() | {"teacher": teacher.name, "kind": "view", "feature_layer": teacher.feature_layer()},
        where=str(sources[0]),
    )
    return ViewManifest(spec, scenes, tuple(source_reference(path, out) for path in sources)).write(out)


def _interchangeable(records: Sequence[SceneRecord]) -> list[list[SceneRecord]]:
    """Group records by number of views and image size, so that a teacher saw the same part of the images.

    Scenes alone with theirs join the largest group (a view then repeats).
    """
    groups: dict[tuple[int, int, int], list[SceneRecord]] = defaultdict(list)
    for record in records:
        groups[len(record.frame_ids), *record.image_size].append(record)
    alone = [group[0] for group in groups.values() if len(group) == 1]
    large = [group for group in groups.values() if len(group) > 1]
    if not alone:
        return large
    if not large:
        return [alone]
    biggest = max(large, key=len)
    return [*(group for group in large if group is not biggest), biggest + alone]
