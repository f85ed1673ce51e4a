"""manifest.json of a feature shard, and of a view: a derived teacher's features, which are another store's under other names.

Both are deterministic: spec, per scene the ordered frames and checksums, counts. A view holds no data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import DataError, StoreError
from pipeline.core.provenance import digest, read_manifest, write_manifest
from pipeline.features.journal import SceneEntry
from pipeline.features.spec import StoreSpec, rebuild
from pipeline.scenes.conventions import checked_id


@dataclass(frozen=True, slots=True)
class ShardManifest:
    """A complete shard: ``shard`` is (index, count)."""

    spec: StoreSpec
    scenes: dict[str, SceneEntry]
    shard: tuple[int, int]

    @property
    def digest(self) -> str:
        """Return a digest of the spec and of all features."""
        return digest([self.spec.digest(), sorted((s, e.checksum) for s, e in self.scenes.items())])

    def write(self, path: Path) -> dict[str, Any]:
        """Write it and return its content."""
        content = {
            "spec": self.spec.to_json(),
            "spec_digest": self.spec.digest(),
            "shard": {"index": self.shard[0], "count": self.shard[1]},
            "scenes": {scene: entry.to_json() for scene, entry in self.scenes.items()},
            "counts": {
                "scenes": len(self.scenes),
                "views": sum(len(e.frame_ids) for e in self.scenes.values()),
                "tokens": sum(len(e.frame_ids) for e in self.scenes.values()) * self.spec.rows * self.spec.cols,
                "bytes": sum(e.bytes for e in self.scenes.values()),
            },
            "digest": self.digest,
        }
        write_manifest(path, content)
        return content


@dataclass(frozen=True, slots=True)
class ViewEntry:
    """A derived teacher's scene: its view v is view v of the scene ``source``, modulo that scene's number of views."""

    source: str
    frame_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ViewManifest:
    """A derived teacher's features. ``sources``: (path relative to this manifest, digest of its content) per source shard."""

    spec: StoreSpec
    scenes: dict[str, ViewEntry]
    sources: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Return a digest of the spec, of which scene stands in for which, and of the features behind it."""
        return digest([self.spec.digest(), self._scenes(), [value for _, value in self.sources]])

    def _scenes(self) -> dict[str, Any]:
        return {s: {"source": e.source, "frame_ids": list(e.frame_ids)} for s, e in sorted(self.scenes.items())}

    def write(self, path: Path) -> dict[str, Any]:
        """Write it and return its content."""
        scenes = self._scenes()
        content = {
            "spec": self.spec.to_json(),
            "spec_digest": self.spec.digest(),
            "shard": {"index": 0, "count": 1},
            "view_of": [{"manifest": name, "digest": value} for name, value in self.sources],
            "scenes": scenes,
            "counts": {"scenes": len(scenes), "views": sum(len(e.frame_ids) for e in self.scenes.values()), "bytes": 0},
            "digest": self.digest,
        }
        write_manifest(path, content)
        return content

    def checked_sources(self, path: Path) -> list[Path]:
        """Return paths of the source manifests. Raise StoreError when one has changed since the view was made."""
        found = []
        for name, value in self.sources:
            source = Path(os.path.normpath(path.parent / name))
            linked = Path(os.path.normpath(path.resolve().parent / name))  # names are relative to where the view really lies
            source = source if source.is_file() or not linked.is_file() else linked
            if _content(source).get("digest") != value:
                raise StoreError(f"the features behind the view have changed: {source}", where=str(path), fix=rebuild(path))
            found.append(source)
        return found


def source_reference(source: Path, view: Path) -> tuple[str, str]:
    """Return how a view's manifest at ``view`` refers to the manifest ``source``."""
    return os.path.relpath(source.resolve(), view.resolve().parent), str(_content(source)["digest"])


def _content(path: Path) -> dict[str, Any]:
    try:
        return read_manifest(path, made_by=f"snakemake --cores all {path}")
    except DataError as error:
        raise StoreError(error.what, fix=error.fix) from None


def read_store_manifest(path: Path) -> ShardManifest | ViewManifest:
    """Read either kind. Raise StoreError when it is missing, malformed, changed since it was written, or of another schema."""
    content, where = _content(path), str(path)
    try:
        found = _parsed(content, StoreSpec.from_json(content["spec"], where=where), where)
        kept = (content["spec_digest"], content["digest"]) == (found.spec.digest(), found.digest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the manifest is malformed ({error!r})", where=where, fix=rebuild(path)) from None
    if not kept:
        raise StoreError("the manifest contradicts its own digests", where=where, fix=rebuild(path))
    return found


def _parsed(content: Any, spec: StoreSpec, where: str) -> ShardManifest | ViewManifest:
    for scene_id in content["scenes"]:
        checked_id(scene_id, what="scene id", where=where)
    if "view_of" not in content:
        scenes = {s: SceneEntry.from_json(e, where=where) for s, e in content["scenes"].items()}
        return ShardManifest(spec, scenes, (int(content["shard"]["index"]), int(content["shard"]["count"])))
    views: dict[str, ViewEntry] = {}
    for scene_id, entry in content["scenes"].items():
        frames = entry["frame_ids"]
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, str) for frame in frames):
            raise TypeError(f"frame ids of {scene_id}")
        views[scene_id] = ViewEntry(checked_id(entry["source"], what="scene id", where=where), tuple(frames))
    return ViewManifest(spec, views, tuple((str(v["manifest"]), v["digest"]) for v in content["view_of"]))
