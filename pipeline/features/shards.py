"""Which shard a scene belongs to: a stable hash of its id, the same on every machine and for every split list."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.provenance import seed_for


def shard_of(scene_id: str, shards: int) -> int:
    """Index (0 <= index < ``shards``) of the shard that holds ``scene_id``. Adding scenes moves no other scene."""
    return seed_for("shard", scene_id) % shards


def scenes_of_shard(scene_ids: Iterable[str], index: int, shards: int) -> list[str]:
    """The ids that shard ``index`` of ``shards`` holds, in the given order."""
    return [scene_id for scene_id in scene_ids if shard_of(scene_id, shards) == index]
