"""A copy of the project in which the study `smoke` has run to the end, once per test session.

    WORKFLOW_TESTS_FOLDER=/tmp/study python -m pytest tests/workflow

keeps that copy in a folder of your choice; the next session runs only what has changed since (Snakemake decides).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workflow_project import ROOT, SMOKE, Project

PARTS = ("pipeline", "workflow", "envs", "slurm", "profiles", "Snakefile", "config.yaml")


def _copy_project(folder: Path) -> Project:
    """The project's own files (no results) in ``folder``; files that are equal keep their times."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source, target = ROOT / part, folder / part
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return Project(folder)


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """The project without any result."""
    return _copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project without any result, for dry runs."""
    return _copy_project(tmp_path_factory.mktemp("untouched") / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with the finished smoke study. Read only: tests that change something take ``finished_copy``."""
    kept = os.environ.get("WORKFLOW_TESTS_FOLDER")
    project = _copy_project(Path(kept) if kept else tmp_path_factory.mktemp("study") / "project")
    project.snakemake("all", "--cores", "2", "--rerun-incomplete", "--configfile", *SMOKE)
    return project


@pytest.fixture
def finished_copy(finished: Project, tmp_path: Path) -> Callable[[], Project]:
    """A function that gives a copy of the finished study with all its times, to be changed at will."""

    def copy() -> Project:
        folder = tmp_path / "project"
        shutil.copytree(finished.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        return Project(folder)

    return copy
