"""Writes a shard: one scene at a time, view by view (convert, check, checksum, write while the view is in the cache)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.conventions import checked_id
from pipeline.errors import StoreError
from pipeline.features import numbers
from pipeline.features.arrays import ArrayWriter, SceneArrays
from pipeline.features.checks import check_features, disk_faults, not_finite, view_checksum
from pipeline.features.journal import Journal, SceneEntry
from pipeline.features.lock import WriterLock
from pipeline.features.manifest import ShardManifest, read_store_manifest
from pipeline.features.resample import resample_features
from pipeline.features.spec import StoreSpec
from pipeline.teachers.base import TeacherFeatures

SCALES, EXTRAS = "scales", ("confidence", "depth", "pose")


def token_array(spec: StoreSpec, part: str) -> str:
    """Name of the array that holds a part: reading one part touches no byte of the others."""
    return "tokens" if spec.parts == (("tokens", spec.dim),) else f"tokens.{part}"


class FeatureWriter:
    """Writes one shard. Opening takes the lock and decides: another spec -> start over, same spec -> keep finished scenes.

    A context manager; ``finish`` writes the manifest. Leaving without ``finish`` keeps what is done for a resume.
    EnvironmentFaultError when the disk or quota is full: the scene being written is taken back, finished ones are kept.
    """

    def __init__(self, folder: Path, spec: StoreSpec):
        self.folder, self.spec = folder, spec
        self.manifest = folder / "manifest.json"
        self._arrays = SceneArrays(folder / "features.zarr")
        self._journal = Journal(folder / "journal.jsonl")
        self._lock = WriterLock(folder / "writer.lock")
        self._done: dict[str, SceneEntry] = {}
        with disk_faults(folder, 0):
            self._lock.acquire()
        try:
            with disk_faults(folder, 0):
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
        for cut_short in self._arrays.scenes() - set(good):
            self._arrays.remove(cut_short)
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
        """Store a scene; nothing happens when it is stored already. On disk when this returns.

        ``features`` are on the teacher's own grid; a store on another grid averages them (resample.py). StoreError for wrong
        shapes and for numbers that are not finite.
        """
        checked_id(scene_id, what="scene id", where=str(self.folder))
        if self.is_done(scene_id, frame_ids):
            return
        check_features(self.spec, scene_id, frame_ids, features)
        if self.spec.native is not None:
            features = resample_features(features, self.spec.grid)
        with disk_faults(self.folder, len(self._done) - (scene_id in self._done)):
            self.manifest.unlink(missing_ok=True)
            self._done.pop(scene_id, None)
            self._arrays.remove(scene_id)
            try:
                entry = self._store(scene_id, tuple(frame_ids), features)
                self._journal.append(scene_id, entry)
            except BaseException:
                self._arrays.remove(scene_id)
                raise
        self._done[scene_id] = entry

    def _store(self, scene_id: str, frame_ids: tuple[str, ...], features: TeacherFeatures) -> SceneEntry:
        views: dict[str, list[str]] = {}
        errors = [0.0]

        def put(array: ArrayWriter, name: str, values: np.ndarray[Any, Any]) -> None:
            array.append(values)
            views.setdefault(name, []).append(view_checksum(values))

        with ExitStack() as stack:
            arrays = {
                name: stack.enter_context(self._arrays.create(name, scene_id, (len(frame_ids), *shape), dtype))
                for name, (shape, dtype) in array_types(self.spec, features).items()
            }
            for view, frame_id in enumerate(frame_ids):
                stored, scales = self._converted(features.tokens[view], errors)
                for part, _ in self.spec.parts:
                    values = np.ascontiguousarray(stored[..., self.spec.columns(part)])
                    if not numbers.finite(values):
                        raise not_finite(self.spec, scene_id, frame_id)
                    put(arrays[token_array(self.spec, part)], token_array(self.spec, part), values)
                if scales is not None:
                    if not np.isfinite(scales).all() or errors[-1] > numbers.INT8_LIMIT:
                        raise self._too_coarse(scene_id, frame_id, errors[-1], scales)
                    put(arrays[SCALES], SCALES, scales)
                for name in EXTRAS:
                    if name in arrays:
                        put(arrays[name], name, np.ascontiguousarray(getattr(features, name)[view], dtype="<f4"))
        self._arrays.flush()
        found = {name: tuple(values) for name, values in views.items()}
        error = max(errors) if self.spec.dtype == "int8" else None
        return SceneEntry(frame_ids, found, self._arrays.bytes_on_disk(scene_id), error)

    def _converted(self, tokens: np.ndarray[Any, Any], errors: list[float]) -> tuple[np.ndarray[Any, Any], Any]:
        """(numbers as stored, scales or None); for int8 the view's largest cosine error is added to ``errors``."""
        if self.spec.dtype != "int8":
            return numbers.encode(tokens, self.spec.dtype), None
        stored, scales = numbers.quantise(tokens)
        errors.append(float(numbers.cosine_error(tokens, numbers.decode(stored, "int8", scales)).max(initial=0.0)))
        return stored, scales

    def _too_coarse(self, scene_id: str, frame_id: str, error: float, scales: np.ndarray[Any, Any]) -> StoreError:
        if not np.isfinite(scales).all():
            return not_finite(self.spec, scene_id, frame_id)
        return StoreError(
            f"int8 turns a token of frame {frame_id!r} by 1 - cos = {error:.3g}",
            where=f"teacher {self.spec.teacher!r}, scene {scene_id!r}",
            allowed=f"at most {numbers.INT8_LIMIT}; channels with spikes need more than 8 bits",
            mend="config.yaml: features.dtype: bfloat16",
        )

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
        with disk_faults(self.folder, len(self._done)):
            self._journal.start(self.spec.digest(), self._done)
            return ShardManifest(self.spec, {scene: self._done[scene] for scene in wanted}, shard).write(self.manifest)


def array_types(spec: StoreSpec, features: TeacherFeatures) -> dict[str, tuple[tuple[int, ...], str]]:
    """Arrays of a scene: name -> (shape of one view, type on disk)."""
    extras = [name for name in EXTRAS if getattr(features, name) is not None]
    return stored_types(spec, extras)


def stored_types(spec: StoreSpec, names: Iterable[str]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The tokens, scales and, of the ``names`` given, extras of a store: name -> (shape of one view, type on disk)."""
    dtype = numbers.stored_type(spec.dtype)
    found: dict[str, tuple[tuple[int, ...], str]] = {
        token_array(spec, part): ((spec.rows, spec.cols, width), dtype) for part, width in spec.parts
    }
    if spec.dtype == "int8":
        found[SCALES] = ((spec.dim,), "float32")
    maps = (spec.rows, spec.cols)
    shapes = {"confidence": maps, "depth": maps, "pose": (4, 4)}
    return found | {name: (shapes[name], "float32") for name in EXTRAS if name in set(names)}
