"""Are stored features what their teacher says? Encodes random scenes again and compares; reads all bytes on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core import registry
from pipeline.core.errors import CheckpointError, StoreError
from pipeline.core.finished import check_files
from pipeline.core.provenance import read_manifest, seed_for
from pipeline.core.runtime import FREER_DEVICE, enough_memory
from pipeline.features.arrays import SceneArrays
from pipeline.features.dtypes import cosine_error
from pipeline.features.manifest import ShardManifest, read_store_manifest
from pipeline.features.mapped import MappedArray
from pipeline.features.memory import Encoder
from pipeline.features.resample import resample_features
from pipeline.features.spec import EXTRAS, array_types, rebuild
from pipeline.features.store import FeatureReader
from pipeline.scenes.index import SceneIndex, source_digest
from pipeline.study.paths import teacher_of
from pipeline.teachers.base import Teacher, TeacherFeatures

SLACK = 2e-6
"""1 - cosine allowed beside the stored format's: rounding of float32 sums in another order."""

EXTRAS_SLACK = 1e-4
"""Largest difference of depth, pose and confidence allowed, as a share of the largest value."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A scene encoded again: largest and mean 1 - cosine of its tokens, the limit, and the largest difference of extras."""

    scene_id: str
    largest: float
    mean: float
    limit: float
    extras: float

    @property
    def good(self) -> bool:
        return self.largest <= self.limit and self.extras <= EXTRAS_SLACK


class ShardVerifier:
    """Verifies one shard that holds data (a derived teacher's view holds none: ``of`` gives None)."""

    def __init__(self, manifest: Path, content: ShardManifest):
        self.manifest, self.spec, self.entries = manifest, content.spec, content.scenes
        self.reader = FeatureReader([manifest])
        self._arrays = SceneArrays(manifest.parent / "features.zarr")

    @classmethod
    def of(cls, manifest: Path) -> ShardVerifier | None:
        """Return a verifier; None for a view with unchanged sources. Raise StoreError for changed sources or a bad manifest."""
        content = read_store_manifest(manifest)
        if isinstance(content, ShardManifest):
            return cls(manifest, content)
        content.checked_sources(manifest)
        return None

    def checksums(self) -> Iterator[tuple[str, int | StoreError]]:
        """Read all bytes of every scene: (scene, their number, or the error that says what is damaged)."""
        for scene_id in self.reader.scene_ids:
            try:
                yield scene_id, self.reader.verify(scene_id)
            except StoreError as error:
                yield scene_id, error

    def chosen(self, count: int, seed: int) -> list[str]:
        """Return ``count`` random scenes (all when there are fewer); the same for the same seed."""
        order = np.random.default_rng(seed_for("verify", seed)).permutation(len(self.reader.scene_ids))
        return sorted(self.reader.scene_ids[i] for i in order[:count])

    def teacher(self, index: SceneIndex, weights: Path | None, device: str) -> Teacher:
        """Return the spec's teacher with its weights. Raise StoreError or CheckpointError when the shard has others."""
        spec = self.spec
        changed = [s for s, e in self.entries.items() if s not in index.records or source_digest(index.records[s]) != e.source]
        if index.dataset != spec.dataset or changed:
            raise StoreError(
                f"the features are of dataset {spec.dataset!r}, and {len(changed)} of their scenes are not those of the index",
                where=str(self.manifest),
                allowed=f"the scenes of {index.path}, dataset {index.dataset!r}"
                + (f"; first {changed[0]!r}" if changed else ""),
                fix=f"give --scenes of that dataset, or {rebuild(self.manifest)}",
            )
        if not spec.member:
            raise StoreError(
                "the manifest does not say how its teacher is built", where=str(self.manifest), fix=rebuild(self.manifest)
            )
        teacher: Teacher = registry.create("teachers", spec.member)
        if teacher.trained_in_workflow and weights is None:
            beside = teacher_of(self.manifest.absolute())
            weights = beside if beside is not None and beside.is_file() else None
        if teacher.trained_in_workflow and weights is None:
            fix = f"pass --weights results/teachers/{teacher.name}/manifest.json"
            raise CheckpointError(f"teacher {teacher.name!r} is trained here and needs its weights", fix=fix)
        if weights is not None:
            check_files(weights, read_manifest(weights, made_by=f"snakemake --cores all {weights}"))
        with enough_memory(f"the weights of teacher {teacher.name!r} were being loaded ({device})", FREER_DEVICE):
            found = teacher.load(weights.parent if weights else None, device)
        if found != spec.weights:
            raise StoreError(
                f"the weights of teacher {teacher.name!r} are {found or '(none)'}, the features were made with {spec.weights}",
                where=str(self.manifest),
                fix=f"give the weights they were made with, or {rebuild(self.manifest)}",
            )
        return teacher

    def same_as_zarr(self, scene_id: str) -> None:
        """Raise StoreError unless the scene's bytes are right and zarr-python reads the same numbers as our reader."""
        self.reader.verify(scene_id)
        entry = self.entries[scene_id]
        for name, kind in array_types(self.spec, entry.views).items():
            count = len(entry.frame_ids)
            array = MappedArray(self._arrays.path, name, scene_id, (count, *kind.shape), kind.dtype, kind.compression)
            ours = array.views(slice(0, count))
            if not np.array_equal(ours, self._arrays.read_with_zarr(name, scene_id)):
                raise StoreError(f"zarr-python reads other numbers from {name} of scene {scene_id!r}", where=str(self.manifest))

    def compare(self, scene_id: str, index: SceneIndex, teacher: Teacher, tolerance: float | None) -> Comparison:
        """Encode a scene again and compare; ``tolerance`` replaces the limit of the stored format."""
        record = index.records[scene_id]
        stored = self.reader.read(scene_id, record.frame_ids)
        encoder = Encoder(index, teacher, f"verify {self.spec.teacher}")
        again = encoder.start(record, encoder.read(record))()
        if self.spec.native is not None:
            again = resample_features(again, self.spec.grid)
        errors = np.concatenate([cosine_error(a, b) for a, b in zip(again.tokens, stored.tokens, strict=True)])
        limit = self.reader.cosine_error(scene_id) + SLACK if tolerance is None else tolerance
        return Comparison(scene_id, float(errors.max()), float(errors.mean()), limit, _extras_difference(again, stored))


def _extras_difference(again: TeacherFeatures, stored: TeacherFeatures) -> float:
    """Return the largest difference in confidence, depth and pose over the largest value; infinite for missing and NaN."""
    largest = 0.0
    for name in EXTRAS:
        a, b = getattr(again, name), getattr(stored, name)
        if (a is None) != (b is None):
            return float("inf")
        if a is not None:
            if a.shape != b.shape or not np.isfinite(a).all():
                return float("inf")
            largest = max(largest, float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-30)))
    return largest
