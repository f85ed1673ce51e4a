"""Fixtures shared by all tests: a small set of built-in rooms, prepared once per test session."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pipeline.core import registry
from pipeline.scenes.index import SceneIndex

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # no test depends on how fast the machine is

TINY_ROOMS = {
    "name": "tiny_rooms",
    "kind": "rooms",
    "options": {"train": 6, "val": 2, "test": 3, "views": 4, "vsibench_per_room": 10},
}
"""Dataset member of the shared fixture (colour and depth 128 x 96), with questions for every benchmark kind."""


@pytest.fixture(scope="session")
def tiny_rooms_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the prepared rooms: manifest.json, posed_images/, annotations/. Read only: tests copy it to change it."""
    folder = tmp_path_factory.mktemp("tiny_rooms")
    registry.create("datasets", TINY_ROOMS).prepare(folder, threads=1)
    return folder


@pytest.fixture(scope="session")
def tiny_rooms(tiny_rooms_folder: Path) -> SceneIndex:
    """Index of the prepared rooms: train 6, val 2, test 3 rooms of 4 views."""
    return SceneIndex(tiny_rooms_folder / "manifest.json")
