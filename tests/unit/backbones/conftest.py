"""Shared fixtures of the multimodal models' tests."""

from __future__ import annotations

import pytest
import torch
from shape_views import write_shapes

from pipeline.scenes.index import SceneIndex


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> SceneIndex:
    """A prepared dataset of single coloured shapes."""
    return write_shapes(tmp_path_factory.mktemp("shapes"))
