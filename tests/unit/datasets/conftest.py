"""A small release of ScanNet in the real formats, and the scenes prepared from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import scannet_files as made

from pipeline.scenes.index import SceneIndex


@pytest.fixture(scope="session")
def scannet_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A release and the options that read it. Read only: tests that change files take ``release``."""
    root = tmp_path_factory.mktemp("release")
    return root, made.write_release(root)


@pytest.fixture
def release(scannet_source: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy that a test may change."""
    root = tmp_path / "release"
    shutil.copytree(scannet_source[0], root)
    return root, scannet_source[1] | {"root": str(root)}


@pytest.fixture(scope="session")
def scannet_index(scannet_source: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    """The release prepared with its usual options. Read only."""
    return made.prepare(scannet_source[1], tmp_path_factory.mktemp("prepared"))
