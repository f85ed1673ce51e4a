"""Data of the shape and scale of a teacher's features, and small synthetic scenes on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.features.dtypes import Compression
from pipeline.features.spec import StoredDtype, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.writer import ScenePlace, SceneWriter
from pipeline.teachers.base import TeacherFeatures

SPECIAL = 5
"""Camera and register tokens of a VGGT view, which the reference recipe stores too."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Views, token rows and columns, channels of a scene, and the side of the student's square grid."""

    views: int
    rows: int
    cols: int
    dim: int
    student: int

    @property
    def frames(self) -> tuple[str, ...]:
        return tuple(f"{10 * view:05d}" for view in range(self.views))

    @property
    def native(self) -> TokenGrid:
        return TokenGrid(self.rows, self.cols)

    @property
    def pooled(self) -> TokenGrid:
        return TokenGrid(self.student, self.student)

    def spec(self, *, pooled: bool, dtype: StoredDtype = "bfloat16", compression: Compression = "none") -> StoreSpec:
        """Return the spec of a store on the native or the student's grid."""
        grid = self.pooled if pooled else self.native
        native = self.native if pooled and self.pooled != self.native else None
        size = (self.dim, grid.rows, grid.cols)
        return StoreSpec("bench", "random_numbers", "bench", *size, dtype=dtype, native=native, compression=compression)


def reference_tokens(shape: Shape, seed: int = 0) -> NDArray[np.float32]:
    """Return all tokens of a scene as the reference stores them: float32 (V, special + G*K, D).

    Normal numbers with a scale of its own per channel (log-normal, sigma 1: a few channels are ten times larger than most, as
    in the last layers of vision transformers).
    """
    random = np.random.default_rng(seed)
    tokens = random.standard_normal((shape.views, SPECIAL + shape.rows * shape.cols, shape.dim), dtype=np.float32)
    tokens *= np.exp(random.standard_normal(shape.dim)).astype(np.float32)
    return tokens


def features_of(shape: Shape, tokens: NDArray[np.float32]) -> TeacherFeatures:
    """Return what our teacher would give of the same scene: patch tokens on their grid."""
    patches = tokens[:, SPECIAL:].reshape(shape.views, shape.rows, shape.cols, shape.dim)
    return TeacherFeatures(np.ascontiguousarray(patches), shape.native)


def write_scenes(folder: Path, scenes: int, views: int, size: tuple[int, int], depth_size: tuple[int, int]) -> SceneIndex:
    """Write a prepared dataset of smooth random pictures and depth that decodes like photographs."""
    random = np.random.default_rng(0)
    camera = np.array([[size[1], 0, size[1] / 2], [0, size[1], size[0] / 2], [0, 0, 1.0]])
    frames = [f"{10 * view:05d}" for view in range(views)]
    records = []
    for number in range(scenes):
        place = ScenePlace(folder / "posed_images" / f"scene{number:04d}", "train", "")
        writer = SceneWriter(place, frames, np.tile(np.eye(4), (views, 1, 1)), camera)
        for view in range(views):
            coarse = Image.fromarray(random.integers(0, 256, (size[0] // 24 + 1, size[1] // 24 + 1, 3), dtype=np.uint8))
            steps = random.integers(500, 5000, (depth_size[0] // 16 + 1, depth_size[1] // 16 + 1)).astype(np.uint16)
            depth = np.kron(steps, np.ones((16, 16), dtype=np.uint16))[: depth_size[0], : depth_size[1]]
            writer.frame(view, np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)), depth)
        records.append(writer.finish())
    write_index(folder, records, dataset="bench", root="posed_images", annotations={}, spec="")
    return SceneIndex(folder / "manifest.json")
