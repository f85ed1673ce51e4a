"""Small feature stores with known content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.provenance import seed_for
from pipeline.features.store import FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures

FRAMES = ("f000", "f010", "f020")


def make_features(scene_id: str, *, views: int = 3, confidence: bool = False) -> TeacherFeatures:
    random = np.random.default_rng(seed_for(scene_id))
    tokens = random.normal(size=(views, 3, 4, 5)).astype(np.float32)
    return TeacherFeatures(tokens, TokenGrid(3, 4), random.random((views, 3, 4)).astype(np.float32) if confidence else None)


@pytest.fixture
def spec() -> StoreSpec:
    return StoreSpec(dataset="rooms", teacher="oracle", kind="geometry", dim=5, rows=3, cols=4)


@pytest.fixture
def frames() -> tuple[str, ...]:
    return FRAMES


@pytest.fixture
def features_of() -> Callable[..., TeacherFeatures]:
    return make_features


@pytest.fixture
def complete_shard(tmp_path: Path, spec: StoreSpec) -> Path:
    """Manifest of a shard with scenes a, b and c; c has confidences."""
    with FeatureWriter(tmp_path / "shard0", spec) as writer:
        for scene_id in "abc":
            writer.write(scene_id, FRAMES, make_features(scene_id, confidence=scene_id == "c"))
        writer.finish()
    return tmp_path / "shard0" / "manifest.json"
