"""The feature store: the only module that touches Zarr.

A shard is a folder ``results/features/{dataset}/{teacher}/shardN/`` with

    features.zarr/tokens/{scene}       (V,G,K,D) uint16 (bfloat16 bit patterns) or float32; chunk = one view, one file a scene
    features.zarr/confidence/{scene}   (V,G,K) float32, only for teachers that have confidences
    journal.jsonl                      finished scenes; what a killed job resumes from
    manifest.json                      written last and atomically: the shard is complete
    writer.lock                        one writer at a time

Not compressed: zlib on random-like bf16 takes 21 s a scene to save 7 %. A scene's bytes are on disk (fsync) before its line is
in the journal, and every view is verified against its checksum on first read: a crash costs the scene it hit, nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from pipeline.conventions import checked_id
from pipeline.errors import StoreError
from pipeline.features import numbers
from pipeline.features.cache import SceneCache
from pipeline.features.checks import check_features, damaged, same_frames, view_checksum
from pipeline.features.journal import Journal, SceneEntry, fsync
from pipeline.features.lock import WriterLock
from pipeline.features.manifest import ShardManifest, ViewEntry, ViewManifest, read_store_manifest
from pipeline.features.spec import StoreSpec, rebuild
from pipeline.grid import TokenGrid
from pipeline.options import did_you_mean
from pipeline.teachers.base import TeacherFeatures

__all__ = ["FeatureReader", "FeatureWriter", "StoreSpec"]

_TOKENS, _CONFIDENCE = "tokens", "confidence"
# What zarr raises for damaged metadata, missing files, cut or changed shards (its own checksum of the shard index included).
_DAMAGE = (BaseZarrError, OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError)


class _SceneArrays:
    """The arrays of one shard's ``features.zarr``."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, kind: str, scene_id: str, values: NDArray[Any]) -> None:
        """Write one scene's array and flush its files and folders to disk."""
        group = zarr.open_group(self.path, mode="a", zarr_format=3)
        array = group.create_array(
            f"{kind}/{scene_id}",
            shape=values.shape,
            dtype=values.dtype,
            chunks=(1, *values.shape[1:]),
            shards=values.shape,
            compressors=None,
            filters=None,
            overwrite=True,
        )
        array[...] = values
        folder = self.path / kind / scene_id
        for inner, _, files in os.walk(folder):
            for name in files:
                fsync(Path(inner, name))
            fsync(Path(inner))
        for parent in (folder.parent, self.path):
            fsync(parent)

    def read(self, kind: str, scene_id: str, views: slice) -> NDArray[Any]:
        """Views of a scene as stored. StoreError when the bytes cannot be read at all."""
        try:
            array = zarr.open_array(self.path / kind / scene_id, mode="r", zarr_format=3)
            return np.asarray(array[views])
        except _DAMAGE as error:
            raise damaged(self.path, scene_id, f"{type(error).__name__}: {error}") from None

    def bytes_on_disk(self, scene_id: str) -> int:
        """Bytes of all files of a scene (0 when there are none)."""
        folders = (self.path / kind / scene_id for kind in (_TOKENS, _CONFIDENCE))
        return sum(f.stat().st_size for folder in folders for f in folder.glob("**/*") if f.is_file())

    def remove(self, scene_id: str) -> None:
        for kind in (_TOKENS, _CONFIDENCE):
            shutil.rmtree(self.path / kind / scene_id, ignore_errors=True)


class FeatureWriter:
    """Writes one shard. Opening takes the lock and decides: another spec -> start over, same spec -> keep finished scenes.

    A context manager; ``finish`` writes the manifest. Leaving without ``finish`` keeps what is done for a resume.
    """

    def __init__(self, folder: Path, spec: StoreSpec):
        self.folder, self.spec = folder, spec
        self.manifest = folder / "manifest.json"
        self._arrays = _SceneArrays(folder / "features.zarr")
        self._journal = Journal(folder / "journal.jsonl")
        self._lock = WriterLock(folder / "writer.lock")
        self._lock.acquire()
        try:
            self._done = self._recover()
        except BaseException:
            self.close()
            raise

    def _recover(self) -> dict[str, SceneEntry]:
        wanted = self.spec.digest()
        found = self._journal.read(wanted)
        if found is None:
            found = self._from_manifest(wanted)
        if found is None:
            self.manifest.unlink(missing_ok=True)
            self._journal.remove()
            if self._arrays.path.exists():
                shutil.rmtree(self._arrays.path)
            found = {}
        good = {scene: entry for scene, entry in found.items() if self._arrays.bytes_on_disk(scene) == entry.bytes}
        if len(good) != len(found):
            self.manifest.unlink(missing_ok=True)
        self._journal.start(wanted, good)
        return good

    def _from_manifest(self, wanted: str) -> dict[str, SceneEntry] | None:
        """Finished scenes of a complete shard of this spec that came without its journal (copied, say)."""
        try:
            content = read_store_manifest(self.manifest)
        except StoreError:
            return None
        return content.scenes if isinstance(content, ShardManifest) and content.spec.digest() == wanted else None

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def is_done(self, scene_id: str, frame_ids: Sequence[str] | None = None) -> bool:
        """True when the scene is stored (for these frames, when given), so that it need not be encoded again."""
        entry = self._done.get(scene_id)
        return entry is not None and (frame_ids is None or entry.frame_ids == tuple(frame_ids))

    def write(self, scene_id: str, frame_ids: Sequence[str], features: TeacherFeatures) -> None:
        """Store a scene; nothing happens when it is stored already. StoreError for wrong shapes or non-finite numbers."""
        checked_id(scene_id, what="scene id", where=str(self.folder))
        if self.is_done(scene_id, frame_ids):
            return
        check_features(self.spec, scene_id, frame_ids, features)
        self.manifest.unlink(missing_ok=True)
        self._arrays.remove(scene_id)
        tokens = numbers.encode(features.tokens, self.spec.dtype)
        confidence = None if features.confidence is None else np.ascontiguousarray(features.confidence, dtype=np.float32)
        self._arrays.write(_TOKENS, scene_id, tokens)
        if confidence is not None:
            self._arrays.write(_CONFIDENCE, scene_id, confidence)
        views = tuple(view_checksum(t, None if confidence is None else confidence[v]) for v, t in enumerate(tokens))
        size = self._arrays.bytes_on_disk(scene_id)
        entry = SceneEntry(tuple(frame_ids), views, confidence is not None, size)
        self._journal.append(scene_id, entry)
        self._done[scene_id] = entry

    def finish(self, scene_ids: Iterable[str] | None = None, *, shard: tuple[int, int] = (0, 1)) -> dict[str, Any]:
        """Write the manifest over ``scene_ids`` (default: all stored) and return it.

        Scenes that are no longer wanted are removed. StoreError when a wanted scene is not stored.
        """
        wanted = sorted(self._done) if scene_ids is None else sorted(scene_ids)
        missing = [scene for scene in wanted if scene not in self._done]
        if missing:
            raise StoreError(f"{len(missing)} scenes are not stored, first {missing[0]!r}", where=str(self.folder))
        for extra in set(self._done) - set(wanted):
            self._arrays.remove(extra)
            del self._done[extra]
        self._journal.start(self.spec.digest(), self._done)
        return ShardManifest(self.spec, {scene: self._done[scene] for scene in wanted}, shard).write(self.manifest)


class FeatureReader:
    """Reads one dataset's features of one teacher from all shards; a derived teacher's view is resolved.

    Nothing is kept in memory but which views are verified, unless ``cache_bytes`` allows least-recently-used scenes.
    """

    def __init__(self, manifests: Sequence[Path], *, cache_bytes: int = 0):
        if not manifests:
            raise StoreError("no feature manifests were given", mend="pass --features MANIFEST for every shard")
        contents = [(Path(path), read_store_manifest(Path(path))) for path in manifests]
        self.spec: StoreSpec = contents[0][1].spec
        self._manifest = contents[0][0]
        self._shards: dict[str, tuple[SceneEntry, _SceneArrays]] = {}
        self._views: dict[str, ViewEntry] | None = None
        self._verified: set[tuple[str, int]] = set()
        self._cache = SceneCache(cache_bytes)
        for path, content in contents:
            if content.spec != self.spec:
                raise StoreError("shards have different specs", where=f"{contents[0][0]}, {path}", mend=rebuild(path))
            if isinstance(content, ViewManifest):
                self._views = {**(self._views or {}), **content.scenes}
                for source in content.checked_sources(path):
                    self._add_shard(source, read_store_manifest(source))
            else:
                self._add_shard(path, content)

    def _add_shard(self, path: Path, content: ShardManifest | ViewManifest) -> None:
        if isinstance(content, ViewManifest):
            raise StoreError("a derived teacher cannot be derived from a derived teacher", where=str(path))
        arrays = _SceneArrays(path.parent / "features.zarr")
        for scene_id, entry in content.scenes.items():
            if scene_id in self._shards:
                raise StoreError(f"scene {scene_id!r} is in two shards", where=str(path), mend=rebuild(path))
            self._shards[scene_id] = (entry, arrays)

    @property
    def dim(self) -> int:
        """Feature width D."""
        return self.spec.dim

    @property
    def grid(self) -> TokenGrid:
        """The token grid of every view."""
        return self.spec.grid

    @property
    def scene_ids(self) -> tuple[str, ...]:
        """All scenes that can be read, sorted."""
        return tuple(sorted(self._shards if self._views is None else self._views))

    def read(self, scene_id: str, frame_ids: Sequence[str]) -> TeacherFeatures:
        """Features of all views of a scene, tokens float32 (V,G,K,D).

        StoreError when the scene is not stored, was stored for other frames than ``frame_ids`` (in their order), or is damaged.
        """
        stored, source = self._locate(scene_id)
        same_frames(scene_id, stored, tuple(frame_ids), self._manifest)
        cached = self._cache.get(scene_id)
        if cached is None:
            cached = self._load(source, range(len(stored)))
            self._cache.put(scene_id, cached)
        return cached

    def read_view(self, scene_id: str, view: int) -> TeacherFeatures:
        """Features of one view, tokens float32 (1,G,K,D); reads and verifies that view's chunk only."""
        stored, source = self._locate(scene_id)
        if not 0 <= view < len(stored):
            raise StoreError(f"scene {scene_id!r} has no view {view}", allowed=f"0 to {len(stored) - 1}")
        return self._load(source, range(view, view + 1))

    def _locate(self, scene_id: str) -> tuple[tuple[str, ...], str]:
        """(frames that a caller must ask for, scene whose arrays are read)."""
        if self._views is not None and scene_id in self._views and self._views[scene_id].source in self._shards:
            return self._views[scene_id].frame_ids, self._views[scene_id].source
        if self._views is None and scene_id in self._shards:
            return self._shards[scene_id][0].frame_ids, scene_id
        near = did_you_mean(scene_id, self.scene_ids)
        raise StoreError(
            f"no features of teacher {self.spec.teacher!r} for scene {scene_id!r}{near}; {len(self.scene_ids)} are stored",
            where=str(self._manifest),
            allowed="scenes of the splits in features.splits of config.yaml",
            mend=f"add the scene's split there, then: snakemake --cores all {self._manifest}",
        )

    def _load(self, source: str, views: range) -> TeacherFeatures:
        entry, arrays = self._shards[source]
        count = len(entry.frame_ids)
        wanted = [view % count for view in views]
        span = slice(min(wanted), max(wanted) + 1)
        tokens = arrays.read(_TOKENS, source, span)
        confidence = arrays.read(_CONFIDENCE, source, span) if entry.confidence else None
        self._verify(source, span, tokens, confidence)
        if wanted != list(range(span.start, span.stop)):
            order = [view - span.start for view in wanted]
            tokens, confidence = tokens[order], None if confidence is None else confidence[order]
        return TeacherFeatures(numbers.decode(tokens, self.spec.dtype), self.grid, confidence)

    def _verify(self, source: str, span: slice, tokens: NDArray[Any], confidence: NDArray[np.float32] | None) -> None:
        entry, arrays = self._shards[source]
        shape = (span.stop - span.start, self.spec.rows, self.spec.cols, self.spec.dim)
        if tokens.shape != shape or tokens.dtype != numbers.stored_type(self.spec.dtype):
            raise damaged(arrays.path, source, f"array is {tokens.dtype}{tokens.shape}")
        for offset, view in enumerate(range(span.start, span.stop)):
            if (source, view) in self._verified:
                continue
            if view_checksum(tokens[offset], None if confidence is None else confidence[offset]) != entry.views[view]:
                raise damaged(arrays.path, source, f"checksum of view {view}, frame {entry.frame_ids[view]!r}, is wrong")
            self._verified.add((source, view))
