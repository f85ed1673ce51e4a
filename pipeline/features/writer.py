"""Writer of a shard: one scene at a time, view by view (convert, check, pack, checksum, write while the view is in the cache).

Views that take computing (packed ones, int8) are made ahead by a few threads while earlier ones are written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import StoreError
from pipeline.core.locks import FolderLock
from pipeline.features import dtypes
from pipeline.features.arrays import GROUP_FILE, SceneArrays
from pipeline.features.checks import check_features, disk_faults, not_finite, too_coarse, view_checksum
from pipeline.features.dtypes import pack, raw_bytes
from pipeline.features.journal import Journal, SceneEntry
from pipeline.features.manifest import ShardManifest, read_store_manifest
from pipeline.features.parallel import SMALL_BYTES, Scratch, in_order, usual_threads
from pipeline.features.resample import resample_features
from pipeline.features.spec import EXTRAS, SCALES, StoreSpec, array_types, token_array
from pipeline.scenes.conventions import checked_id
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures


class FeatureWriter:
    """A writer of one shard. Opening takes the lock and decides: same spec -> keep finished scenes, another spec -> start over,
    unless that store is finished: StoreError.

    A context manager; ``finish`` writes the manifest. Leaving without ``finish`` keeps what is done for a resume.
    EnvironmentFaultError when the disk or quota is full: the scene being written is taken back, finished ones are kept.
    ``anew``: nothing that is there is kept. ``threads`` pack and quantise (default: cores, at most 4); they change no byte.
    """

    def __init__(self, folder: Path, spec: StoreSpec, *, threads: int | None = None, anew: bool = False):
        self.folder, self.spec = folder, spec
        self._threads = usual_threads() if threads is None else threads
        self._scratch = Scratch()
        self.manifest = folder / "manifest.json"
        self._arrays = SceneArrays(folder / "features.zarr", spec.attributes())
        self._journal = Journal(folder / "journal.jsonl")
        self._lock = FolderLock(folder)
        self._done: dict[str, SceneEntry] = {}
        self._anew = anew
        with disk_faults(folder):
            self._lock.acquire()
        try:
            with disk_faults(folder):
                self._done = self._recover()
        except BaseException:
            self.close()
            raise

    def _recover(self) -> dict[str, SceneEntry]:
        wanted = self.spec.digest()
        found = None if self._anew else self._journal.read(wanted)
        if found is None and not self._anew:
            found = self._from_manifest(wanted)
        if found is None:
            self._say_anew()
            self.manifest.unlink(missing_ok=True)
            self._journal.remove()
            self._arrays.remove_all()
            found = {}
        good = {scene: entry for scene, entry in found.items() if self._arrays.bytes_on_disk(scene) == entry.bytes}
        if len(good) != len(found):
            self.manifest.unlink(missing_ok=True)
        for cut_short in self._arrays.scenes() - set(good):
            self._arrays.remove(cut_short)
        self._journal.start(wanted, good)
        return good

    def _say_anew(self) -> None:
        """Tell on stderr that scenes of an unfinished or unreadable store of another spec are given up."""
        if scenes := len(self._arrays.scenes()):
            print(f"{self.folder}: its {scenes} scenes are of another spec and are made anew", file=sys.stderr, flush=True)

    def _from_manifest(self, wanted: str) -> dict[str, SceneEntry] | None:
        """Return the finished scenes of a complete shard of this spec without its journal (copied, say), else None.

        Raise StoreError for a finished store of another spec, perhaps hours of a GPU. Snakemake removes what it makes anew.
        """
        try:
            found = read_store_manifest(self.manifest)
        except StoreError:
            return None
        if isinstance(found, ShardManifest) and found.spec.digest() == wanted:
            return found.scenes
        theirs = found.spec.to_json()
        names = [name for name, value in self.spec.to_json().items() if theirs[name] != value]
        raise StoreError(
            f"a finished store of another spec is here: {len(found.scenes)} scenes ({', '.join(names)} differ)",
            where=str(self.manifest),
            allowed="a store of the same spec, which is gone on with, or none",
            fix=f"give another --out, or give it up: rm {shlex.quote(str(self.manifest))}",
        )

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def is_done(self, scene_id: str, frame_ids: Sequence[str] | None = None, source: str | None = None) -> bool:
        """True when the scene is stored (of these frames and this source, when given), so that it need not be encoded again."""
        entry = self._done.get(scene_id)
        if entry is None:
            return False
        return (frame_ids is None or entry.frame_ids == tuple(frame_ids)) and (source is None or entry.source == source)

    def write(
        self,
        scene_id: str,
        frame_ids: Sequence[str],
        features: TeacherFeatures,
        own: TokenGrid | None = None,
        *,
        source: str = "",
    ) -> None:
        """Store a scene; nothing happens when it is stored already. On disk when this returns.

        ``features`` are on the teacher's own grid (``own``, where it depends on the scene's image size); a store on another
        grid averages them (resample.py). ``source``: digest of what was encoded (index.source_digest). Raise
        StoreError for wrong shapes and for numbers that are not finite.
        """
        checked_id(scene_id, what="scene id", where=str(self.folder))
        if scene_id == GROUP_FILE:
            raise StoreError(f"a scene cannot be called {GROUP_FILE}: Zarr has a file of that name", where=str(self.folder))
        if self.is_done(scene_id, frame_ids, source):
            return
        check_features(self.spec, scene_id, frame_ids, features, own)
        if self.spec.native is not None:
            features = resample_features(features, self.spec.grid)
        with disk_faults(self.folder, len(self._done) - (scene_id in self._done)):
            self.manifest.unlink(missing_ok=True)
            if self._done.pop(scene_id, None) is not None:  # other frames: its line must not outlive its bytes
                self._journal.start(self.spec.digest(), self._done)
            self._arrays.remove(scene_id)
            try:
                entry = replace(self._store(scene_id, tuple(frame_ids), features), source=source)
                self._journal.append(scene_id, entry)
            except BaseException:
                with suppress(OSError):
                    self._arrays.remove(scene_id)
                raise
        self._done[scene_id] = entry

    def _store(self, scene_id: str, frame_ids: tuple[str, ...], features: TeacherFeatures) -> SceneEntry:
        extras = {name: values for name in EXTRAS if (values := getattr(features, name)) is not None}
        types = array_types(self.spec, extras)
        views: dict[str, list[str]] = {name: [] for name in types}
        error = 0.0

        def make(view: int) -> tuple[dict[str, tuple[NDArray[np.uint8], str]], float]:
            numbers_of, moved = self._stored(features.tokens[view], f"scene {scene_id!r}, frame {frame_ids[view]!r}")
            numbers_of |= {name: np.ascontiguousarray(values[view], dtype="<f4") for name, values in extras.items()}
            found = {
                name: (raw_bytes if types[name].compression == "none" else pack)(values) for name, values in numbers_of.items()
            }
            return {name: (stored, view_checksum(stored)) for name, stored in found.items()}, moved

        with ExitStack() as stack:
            arrays = {
                name: stack.enter_context(self._arrays.create(name, scene_id, frame_ids, kind)) for name, kind in types.items()
            }
            for made, moved in stack.enter_context(closing(in_order(make, len(frame_ids), self._threads_for(features)))):
                for name, (stored, checksum) in made.items():
                    arrays[name].append(stored)
                    views[name].append(checksum)
                error = max(error, moved)
        self._arrays.flush()
        checksums = {name: tuple(values) for name, values in views.items()}
        size = self._arrays.bytes_on_disk(scene_id)
        seen = features.seen if self.spec.native and features.seen != self.spec.native.window else None
        return SceneEntry(frame_ids, checksums, size, error if self.spec.dtype == "int8" else None, seen)

    def _threads_for(self, features: TeacherFeatures) -> int:
        """Return 1 where there is little to compute: views then share one buffer, each written before the next is made."""
        plain = self.spec.compression == "none" and self.spec.dtype != "int8"
        return 1 if plain or features.tokens.nbytes < SMALL_BYTES else self._threads

    def _stored(self, tokens: NDArray[np.float32], what: str) -> tuple[dict[str, NDArray[Any]], float]:
        """Return a view's arrays as stored from tokens (G,K,D) and, for int8, a token's largest 1 - cosine from storing."""
        where, spec, moved, found = f"teacher {self.spec.teacher!r}, {what}", self.spec, 0.0, {}
        if spec.dtype == "int8":
            if not dtypes.finite(tokens):
                raise not_finite(where)
            values, found[SCALES] = dtypes.quantise(tokens)
            moved = float(dtypes.cosine_error(tokens, dtypes.decode(values, "int8", found[SCALES])).max())
            if not moved <= dtypes.INT8_LIMIT:  # NaN: the largest numbers of float32 become infinite
                raise too_coarse(where, moved, dtypes.INT8_LIMIT)
        else:
            bits = self._scratch.array(tokens.shape, "uint16") if spec.dtype == "bfloat16" else None
            values = dtypes.encode(tokens, spec.dtype, bits)
            if not dtypes.finite(values):
                raise not_finite(where)
        for layer, _ in spec.layers:
            found[token_array(spec, layer)] = np.ascontiguousarray(values[..., spec.columns(layer)])
        return found, moved

    def finish(self, scene_ids: Iterable[str] | None = None, *, shard: tuple[int, int] = (0, 1)) -> dict[str, Any]:
        """Write the manifest over ``scene_ids`` (default: all stored) and return it.

        Scenes that are no longer wanted are removed. Raise StoreError when a wanted scene is not stored.
        """
        wanted = sorted(self._done) if scene_ids is None else sorted(scene_ids)
        missing = [scene for scene in wanted if scene not in self._done]
        if missing:
            raise StoreError(f"{len(missing)} scenes are not stored, first {missing[0]!r}", where=str(self.folder))
        with disk_faults(self.folder):
            for extra in set(self._done) - set(wanted):
                self._arrays.remove(extra)
                del self._done[extra]
            self._journal.start(self.spec.digest(), self._done)
            return ShardManifest(self.spec, {scene: self._done[scene] for scene in wanted}, shard).write(self.manifest)
