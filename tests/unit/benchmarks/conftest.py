"""A hand-made prepared dataset: index manifests and annotation files without pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import registry
from pipeline.scenes.index import SceneIndex, write_index
from pipeline.scenes.types import SceneObject, SceneRecord

UNIT = (1.0, 1.0, 1.0)


def box(x: float, size: tuple[float, float, float] = UNIT) -> tuple[float, ...]:
    return (x, 0.0, 0.0, *size)


def record(
    scene_id: str,
    categories: list[str],
    *,
    split: str = "test",
    proposals: list[tuple[float, ...]] | None = None,
    attributes: list[dict[str, str]] | None = None,
) -> SceneRecord:
    """Objects 0, 1, ... are unit cubes ten metres apart along x; proposals default to none (ground truth)."""
    given = attributes or [{} for _ in categories]
    objects = tuple(SceneObject(i, c, box(10.0 * i), a) for i, (c, a) in enumerate(zip(categories, given, strict=True)))  # type: ignore[arg-type]
    return SceneRecord(
        scene_id=scene_id,
        split=split,
        frame_ids=("00000",),
        world_from_camera=np.eye(4)[None],
        intrinsics=np.eye(3),
        depth_intrinsics=np.eye(3),
        image_size=(8, 8),
        depth_size=(8, 8),
        objects=objects,
        proposals=None if proposals is None else np.asarray(proposals, dtype=np.float64).reshape(-1, 6),
        checksum="0",
    )


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., SceneIndex]:
    """``make_index(records, {benchmark: {split: {file name: content}}})``; a string content is written as it is."""

    def make(records: list[SceneRecord], annotations: dict[str, dict[str, dict[str, Any]]]) -> SceneIndex:
        names: dict[str, dict[str, list[str]]] = {}
        for benchmark, splits in annotations.items():
            for split, files in splits.items():
                for name, content in files.items():
                    text = content if isinstance(content, str) else json.dumps(content)
                    (tmp_path / name).write_text(text, encoding="utf-8")
                    names.setdefault(benchmark, {}).setdefault(split, []).append(name)
        write_index(tmp_path, records, dataset="hand", root=".", annotations=names, spec="0")
        return SceneIndex(tmp_path / "manifest.json")

    return make


@pytest.fixture
def member() -> Callable[..., Any]:
    """``member("scanrefer", unique_among="described")``: a benchmark with options."""

    def make(kind: str, **options: Any) -> Any:
        return registry.create("benchmarks", {"name": kind, "kind": kind, "options": options})

    return make


def value(results: list[Any], metric: str, subset: str = "all", reference: str = "") -> float:
    """The value of one metric; fails when it is not there exactly once."""
    found = [r.value for r in results if (r.metric, r.subset, r.reference) == (metric, subset, reference)]
    assert len(found) == 1, f"{metric}/{subset}/{reference}: {len(found)} results"
    return found[0]


@pytest.fixture(name="value")
def value_fixture() -> Callable[..., float]:
    return value


@pytest.fixture(name="record")
def record_fixture() -> Callable[..., SceneRecord]:
    return record


@pytest.fixture(name="box")
def box_fixture() -> Callable[..., tuple[float, ...]]:
    return box
