"""From scenes to a feature shard: the next scene is read and the last one written while the current one is encoded.

Memory is bounded: at most two scenes and three sets of features exist at a time, whatever the data set's size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, StoreError
from pipeline.features.manifest import ViewEntry, ViewManifest, read_store_manifest, source_reference
from pipeline.features.shards import scenes_of_shard
from pipeline.features.store import FeatureWriter, StoreSpec
from pipeline.index import SceneIndex
from pipeline.progress import Progress
from pipeline.provenance import digest
from pipeline.scene import Scene, SceneRecord
from pipeline.teachers.base import Teacher


def store_spec(spec: dict[str, Any], index: SceneIndex, teacher: Teacher, weights: str) -> StoreSpec:
    """The spec of the store that a teacher with these weights (digest) makes of a dataset."""
    first = next(iter(index), None)
    if first is None:
        raise DataError("the dataset has no scenes", where=str(index.path))
    grid = teacher.grid(*first.image_size)
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
        tap=teacher.tap(),
        frames=index.digest,
        code=spec.get("code", ""),
    )


def records_of_shard(index: SceneIndex, splits: Sequence[str], shard: int, shards: int) -> list[SceneRecord]:
    """Records of the chosen splits that belong to a shard, in index order."""
    chosen = [record.scene_id for record in index if record.split in set(splits)]
    return [index.records[scene_id] for scene_id in scenes_of_shard(chosen, shard, shards)]


def _ahead(index: SceneIndex, records: Sequence[SceneRecord], reader: ThreadPoolExecutor) -> Iterator[Scene]:
    """Scenes in order, the next one being read while the current one is used."""
    waiting: Future[Scene] | None = None
    for record in records:
        current, waiting = waiting, reader.submit(index.load, record.scene_id)
        if current is not None:
            yield current.result()
    if waiting is not None:
        yield waiting.result()


def extract_shard(index: SceneIndex, records: Sequence[SceneRecord], teacher: Teacher, writer: FeatureWriter) -> int:
    """Encode and store every record that is not stored yet; their number. An error keeps all scenes finished before it."""
    todo = [record for record in records if not writer.is_done(record.scene_id, record.frame_ids)]
    label = f"extract {writer.spec.dataset}/{teacher.name}"
    written: Future[None] | None = None
    with Progress(label, len(todo), "scenes") as progress, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as keeper:
        for scene in _ahead(index, todo, reader):
            features = teacher.encode(scene)
            if written is not None:
                written.result()
            written = keeper.submit(writer.write, scene.scene_id, scene.record.frame_ids, features)
            progress.step()
        if written is not None:
            written.result()
    return len(todo)


def write_view(
    index: SceneIndex, splits: Sequence[str], teacher: Teacher, sources: Sequence[Path], out: Path
) -> dict[str, Any]:
    """Write the manifest of a derived teacher: which stored scene stands in for which. No features are copied."""
    if not sources:
        raise StoreError(f"teacher {teacher.name!r} needs the features of {teacher.source()!r}", mend="pass --source MANIFEST")
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
        source.to_json() | {"teacher": teacher.name, "kind": "view", "tap": teacher.tap()}, where=str(sources[0])
    )
    return ViewManifest(spec, scenes, tuple(source_reference(path, out) for path in sources)).write(out)


def _interchangeable(records: Sequence[SceneRecord]) -> list[list[SceneRecord]]:
    """Records grouped by their number of views. Scenes alone with theirs join the largest group (a view then repeats)."""
    groups: dict[int, list[SceneRecord]] = defaultdict(list)
    for record in records:
        groups[len(record.frame_ids)].append(record)
    alone = [group[0] for group in groups.values() if len(group) == 1]
    large = [group for group in groups.values() if len(group) > 1]
    if not alone:
        return large
    if not large:
        return [alone]
    biggest = max(large, key=len)
    return [*(group for group in large if group is not biggest), biggest + alone]
