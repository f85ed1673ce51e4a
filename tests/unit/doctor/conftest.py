"""Fixtures of the doctor's tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from doctor_studies import FAKE_TEACHER, tiny_random_checkpoint
from manifest_files import change_manifest

from pipeline.core.provenance import digest
from pipeline.doctor.environment import Probes
from pipeline.study.config import StudyConfig
from pipeline.study.specs import Specs


@pytest.fixture(scope="session")
def probes() -> Probes:
    """This machine's programs, started and asked once: importing Open3D takes a second."""
    return Probes()


@pytest.fixture(autouse=True)
def _asked_once(probes: Probes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.doctor.examine.Probes", lambda: probes)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, the working folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake_teacher(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher kind `fake_released` for tests: see doctor_studies.FAKE_TEACHER."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "teachers").mkdir()
    (folder / "teachers" / "fake_released.py").write_text(FAKE_TEACHER, encoding="utf-8")
    monkeypatch.setenv("PIPELINE_PLUGINS", str(folder))


@pytest.fixture
def prepared(project: Path, tiny_rooms_folder: Path) -> Callable[[StudyConfig], Path]:
    """Put the session's rooms where the study's dataset `tiny_rooms` is expected, as if prepared for this configuration."""

    def put(config: StudyConfig) -> Path:
        folder = project / "results/scenes/tiny_rooms"
        shutil.copytree(tiny_rooms_folder, folder, dirs_exist_ok=True)
        spec = digest(json.loads(Specs(config).prepare("tiny_rooms")))
        change_manifest(folder / "manifest.json", lambda content: content.update(spec=spec))
        return folder

    return put


@pytest.fixture(scope="session")
def tiny_random_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One sharded tiny checkpoint per family. Read only: tests copy it to change it."""
    import torch

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("tiny_random_checkpoints")
    folders = {}
    for kind in ("qwen2_5_vl", "llava_onevision", "internvl"):
        (root / kind).mkdir()
        folders[kind] = tiny_random_checkpoint(kind, root / kind)
    return folders
