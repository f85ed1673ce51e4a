"""Reader of one teacher's features: memory-mapped, every view verified against its checksum before its first use.

A view is verified, unpacked and converted in one go while it is in the processor's cache, several views side by side.

Three ways, from comfortable to fast; rates on VGGT-shaped scenes are printed by ``python -m pipeline bench``:

* ``read``         float32 tokens in memory of the caller's own (twice the bytes of bfloat16);
* ``read_stored``  the stored numbers (uint16 bit patterns for bfloat16), mapped without a copy unless they are packed;
* ``read_tensor``  the same as a torch tensor (bfloat16 for bfloat16 stores), for training on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import StoreError
from pipeline.core.options import did_you_mean
from pipeline.core.provenance import digest
from pipeline.features import dtypes
from pipeline.features.arrays import SceneArrays
from pipeline.features.checks import damaged, same_frames
from pipeline.features.journal import SceneEntry
from pipeline.features.manifest import ShardManifest, ViewEntry, ViewManifest, read_store_manifest
from pipeline.features.mapped import MappedArray, VerifiedArray
from pipeline.features.parallel import SMALL_BYTES, Scratch, each, usual_threads
from pipeline.features.spec import EXTRAS, SCALES, StoreSpec, array_types, rebuild, token_array
from pipeline.scenes.grid import TokenGrid, Window, common_window
from pipeline.teachers.base import TeacherFeatures

if TYPE_CHECKING:
    import torch


FileState = tuple[int, int, int, int]
"""Device, inode, bytes and time of the last change of a file."""

_BLOCK_BYTES = 1 << 20
"""float32 numbers that are converted at once: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """Views of a scene as stored. ``tokens`` (V,G,K,D) uint16 bfloat16 bits, float32 or int8; ``scales`` (V,D) for int8.

    Arrays are memory-mapped when a single unpacked array holds the request; changing them never changes the store.
    """

    tokens: NDArray[Any]
    grid: TokenGrid
    dtype: str
    scales: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None
    depth: NDArray[np.float32] | None = None
    pose: NDArray[np.float32] | None = None


class FeatureReader:
    """A reader of one dataset's features of one teacher from all shards; it resolves a derived teacher's view.

    ``layer``: read only this layer of several (``layers``). Nothing is kept in memory but which views are verified; the
    system keeps the files' pages. ``threads`` verify, unpack and convert the views of a scene (default:
    cores, at most 4); they live as long as a call. Threads may share a reader; processes may be forked or given it.
    """

    def __init__(self, manifests: Sequence[Path], *, layer: str | None = None, threads: int | None = None):
        if not manifests:
            raise StoreError("no feature manifests were given", fix="pass --features MANIFEST for every shard")
        self._made_by = partial(FeatureReader, manifests, layer=layer, threads=threads)
        contents = [(Path(path), read_store_manifest(Path(path))) for path in manifests]
        self.spec: StoreSpec = contents[0][1].spec
        self._columns = self.spec.columns(layer)
        self._layers = [(name, width) for name, width in self.spec.layers if layer in (None, name)]
        self._manifest = contents[0][0]
        self._shards: dict[str, tuple[SceneEntry, SceneArrays]] = {}
        self._views: dict[str, ViewEntry] | None = None
        # (scene, array) -> which file, 1 per view of it that is verified; a file that was replaced is verified anew
        self._verified: dict[tuple[str, str], tuple[FileState, bytearray]] = {}
        self._threads = usual_threads() if threads is None else threads
        self._scratch = Scratch()
        for path, content in contents:
            if content.spec != self.spec:
                raise StoreError("shards have different specs", where=f"{contents[0][0]}, {path}", fix=rebuild(path))
            if isinstance(content, ViewManifest):
                self._views = {**(self._views or {}), **content.scenes}
                for source in content.checked_sources(path):
                    self._add_shard(source, read_store_manifest(source))
            else:
                self._add_shard(path, content)

    def _add_shard(self, path: Path, content: ShardManifest | ViewManifest) -> None:
        if isinstance(content, ViewManifest):
            raise StoreError("a derived teacher cannot be derived from a derived teacher", where=str(path))
        beside = path.resolve() if path.is_symlink() else path  # of a linked manifest, the arrays are not beside the link
        arrays = SceneArrays(beside.parent / "features.zarr")
        for scene_id, entry in content.scenes.items():
            if scene_id in self._shards:
                raise StoreError(f"scene {scene_id!r} is in two shards", where=str(path), fix=rebuild(path))
            self._shards[scene_id] = (entry, arrays)

    def __reduce__(self) -> tuple[partial[FeatureReader], tuple[()]]:
        """Let a worker process that is not forked (of a data loader, say) open the manifests itself."""
        return self._made_by, ()

    def content_digest(self, scene_ids: Sequence[str]) -> str:
        """Return a digest of what reading these scenes gives: the layers read and every stored number of the scenes."""
        stored = [(scene_id, self._locate(scene_id)) for scene_id in scene_ids]
        scenes = [(scene_id, frames, self._shards[source][0].checksum) for scene_id, (frames, source) in stored]
        return digest([self.spec.to_json(), self._layers, scenes])

    @property
    def dim(self) -> int:
        """Return the feature width D: of the layer when one was chosen."""
        return self._columns.stop - self._columns.start

    @property
    def grid(self) -> TokenGrid:
        """Return the token grid of every view."""
        return self.spec.grid

    @property
    def layers(self) -> dict[str, int]:
        """Return names and widths of the layers in the store, in their order on D."""
        return dict(self.spec.layers)

    @property
    def scene_ids(self) -> tuple[str, ...]:
        """Return all scenes that can be read, sorted."""
        return tuple(sorted(self._shards if self._views is None else self._views))

    def frame_ids(self, scene_id: str) -> tuple[str, ...]:
        """Return the ordered frames that a scene's features were made for. Raise StoreError when it is not stored."""
        return self._locate(scene_id)[0]

    def seen(self, scene_id: str) -> Window:
        """Return the part of the images that a scene's features describe: inside the grid, and inside what the teacher saw.

        From geometry alone, also for stores that were averaged onto a student's grid. Raise StoreError when it is not stored.
        """
        return common_window(self.grid.window, self._seen(self._locate(scene_id)[1]) or self.grid.window)

    def _seen(self, source: str) -> Window | None:
        """Return what the teacher saw of a stored scene, where that is not the grid's window."""
        native = self.spec.native.window if self.spec.native else None
        return self._shards[source][0].seen or native

    def extras(self, scene_id: str) -> tuple[str, ...]:
        """Return what is stored beside a scene's tokens: confidence, depth, pose."""
        return tuple(name for name in EXTRAS if name in self._shards[self._locate(scene_id)[1]][0].views)

    def read(self, scene_id: str, frame_ids: Sequence[str]) -> TeacherFeatures:
        """Read features of all views of a scene, tokens float32 (V,G,K,D).

        Raise StoreError when the scene is damaged, not stored, or stored for other frames than ``frame_ids`` (in their order).
        """
        stored, source = self._locate(scene_id)
        same_frames(scene_id, stored, tuple(frame_ids), self._manifest)
        return self._decode(source, range(len(stored)))

    def read_stored(self, scene_id: str, frame_ids: Sequence[str]) -> StoredFeatures:
        """Read the stored numbers of all views, not converted; not copied either, of one layer that is not packed.

        Faults as ``read``.
        """
        stored, source = self._locate(scene_id)
        same_frames(scene_id, stored, tuple(frame_ids), self._manifest)
        return self._load(source, range(len(stored)))

    def read_tensor(self, scene_id: str, frame_ids: Sequence[str], *, out: torch.Tensor | None = None) -> torch.Tensor:
        """Read tokens (V,G,K,D) as a CPU tensor: bfloat16 from bfloat16 and int8 stores, float32 from float32 stores.

        Without a float32 copy; what is not packed (nor int8) is mapped without any. ``out`` (same shape and type, pinned, say)
        is filled and returned instead. Faults as ``read``.
        """
        found = self.read_stored(scene_id, frame_ids)
        if found.dtype == "int8":
            assert found.scales is not None
            # NumPy asks the system for large pages, torch does not: half of the time would go into small ones.
            shape = found.tokens.shape
            result = torch.from_numpy(np.empty(shape, dtype=np.uint16)).view(torch.bfloat16) if out is None else out
            tokens, scales = found.tokens, found.scales

            rows = max(1, _BLOCK_BYTES // (4 * int(np.prod(tokens.shape[2:]))))

            def convert(view: int) -> None:
                for start in range(0, tokens.shape[1], rows):
                    stored = tokens[view, start : start + rows]
                    line = self._scratch.array(stored.shape, "float32")
                    result[view, start : start + rows].copy_(
                        torch.from_numpy(dtypes.decode(stored, "int8", scales[view], line))
                    )

            each(convert, len(tokens), self._threads_for(tokens.nbytes))
            return result
        mapped = torch.from_numpy(found.tokens)
        mapped = mapped.view(torch.bfloat16) if found.dtype == "bfloat16" else mapped
        return mapped if out is None else out.copy_(mapped)

    def read_view(self, scene_id: str, view: int) -> TeacherFeatures:
        """Read features of one view, tokens float32 (1,G,K,D), verifying that view's chunk only."""
        stored, source = self._locate(scene_id)
        if not 0 <= view < len(stored):
            raise StoreError(f"scene {scene_id!r} has no view {view}", allowed=f"0 to {len(stored) - 1}")
        return self._decode(source, range(view, view + 1))

    def verify(self, scene_id: str) -> int:
        """Read every byte of a scene again and compare with the checksums; its bytes. Raise StoreError when it is damaged."""
        _, source = self._locate(scene_id)
        entry, arrays = self._shards[source]
        if arrays.bytes_on_disk(source) != entry.bytes:
            raise damaged(arrays.path, source, f"{arrays.bytes_on_disk(source)} bytes on disk instead of {entry.bytes}")
        for name in entry.views:
            self._verified.pop((source, name), None)
            array = self._open(source, name)
            if array.array.frame_ids != list(entry.frame_ids):
                raise array.array.damaged("zarr.json names other frames than the manifest")
            for view in range(len(entry.frame_ids)):
                array.check(view)
        return entry.bytes

    def cosine_error(self, scene_id: str) -> float:
        """Return the largest 1 - cosine between a scene's tokens before and after storing: measured for int8, else bounded."""
        entry = self._shards[self._locate(scene_id)[1]][0]
        return dtypes.STATED_ERROR[self.spec.dtype] if entry.error is None else entry.error

    def stored_bytes(self, scene_id: str) -> int:
        """Return the bytes on disk of the scene that is read."""
        return self._shards[self._locate(scene_id)[1]][0].bytes

    def _locate(self, scene_id: str) -> tuple[tuple[str, ...], str]:
        """Return (frames that a caller must ask for, scene whose arrays are read)."""
        if self._views is not None and scene_id in self._views and self._views[scene_id].source in self._shards:
            return self._views[scene_id].frame_ids, self._views[scene_id].source
        if self._views is None and scene_id in self._shards:
            return self._shards[scene_id][0].frame_ids, scene_id
        near = did_you_mean(scene_id, self.scene_ids)
        raise StoreError(
            f"no features of teacher {self.spec.teacher!r} for scene {scene_id!r}{near}; {len(self.scene_ids)} are stored",
            where=str(self._manifest),
            allowed="scenes of the splits in features.splits of config.yaml",
            fix=f"add the scene's split there, then: snakemake --cores all {self._manifest}",
        )

    def _threads_for(self, nbytes: int) -> int:
        return self._threads if nbytes > SMALL_BYTES else 1

    def _decode(self, source: str, views: range) -> TeacherFeatures:
        """Decode views of a stored scene to float32 in new memory; view v is the scene's v modulo its number of views."""
        entry, _ = self._shards[source]
        scales = self._take(source, SCALES, views)[:, self._columns] if self.spec.dtype == "int8" else None
        arrays, start = [], 0
        for layer, width in self._layers:
            arrays.append((self._open(source, token_array(self.spec, layer)), slice(start, start + width)))
            start += width
        tokens = np.empty((len(views), self.grid.rows, self.grid.cols, self.dim), dtype=np.float32)

        def decode(number: int) -> None:
            for array, columns in arrays:
                stored = array.view(views[number] % len(entry.frame_ids), self._scratch)
                steps = None if scales is None else scales[number, columns]
                dtypes.decode(stored, self.spec.dtype, steps, tokens[number][..., columns])

        each(decode, len(views), self._threads_for(tokens.nbytes))
        extras = {name: np.array(self._take(source, name, views)) for name in EXTRAS if name in entry.views}
        return TeacherFeatures(tokens, self.grid, seen=self._seen(source), **extras)

    def _load(self, source: str, views: range) -> StoredFeatures:
        entry, _ = self._shards[source]
        tokens = [self._take(source, token_array(self.spec, layer), views) for layer, _ in self._layers]
        return StoredFeatures(
            tokens=tokens[0] if len(tokens) == 1 else np.concatenate(tokens, axis=-1),
            grid=self.grid,
            dtype=self.spec.dtype,
            scales=self._take(source, SCALES, views)[:, self._columns] if self.spec.dtype == "int8" else None,
            **{name: self._take(source, name, views) for name in EXTRAS if name in entry.views},
        )

    def _take(self, source: str, name: str, views: range) -> NDArray[Any]:
        """Return verified views of one array of a stored scene, mapped when they are consecutive and not packed."""
        array, count = self._open(source, name), len(self._shards[source][0].frame_ids)
        wanted = [view % count for view in views]
        span = slice(min(wanted), max(wanted) + 1)
        found = array.views(span, self._threads)
        in_order = wanted == list(range(span.start, span.stop))
        return found if in_order else found[[view - span.start for view in wanted]]

    def _open(self, source: str, name: str) -> VerifiedArray:
        """Open one array of a stored scene."""
        entry, arrays = self._shards[source]
        known = array_types(self.spec, entry.views)
        if name not in entry.views or name not in known:
            raise damaged(arrays.path, source, f"its entry has no checksums of {name}")
        count, kind = len(entry.frame_ids), known[name]
        array = MappedArray(arrays.path, name, source, (count, *kind.shape), kind.dtype, kind.compression)
        known_file, seen = self._verified.get((source, name), (None, bytearray()))
        if known_file != array.file:
            seen = bytearray(count)
            self._verified[source, name] = (array.file, seen)
        return VerifiedArray(array, entry.views[name], entry.frame_ids, seen)
