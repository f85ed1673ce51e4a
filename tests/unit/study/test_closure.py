"""Which code counts for which command: all of it for some, or it stands on the list; and whatever runs counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.core import registry
from pipeline.core.options import Options
from pipeline.study.closure import CHANGES_NO_RESULT, PACKAGE, Closure, Place, counts, dotted
from pipeline.study.config import StudyConfig
from pipeline.study.specs import Specs
from pipeline.study.syntax import NAMELESS, read_source

ROOT = PACKAGE.parent
COMMANDS = (
    *("prepare", "pretrain_teacher", "pretrain_backbone", "extract", "train", "predict", "score"),
    *("cell", "summary", "report"),
)
"""Those that rules run, in an order in which each finds what it needs."""


FOR_PLUGINS = {"teachers._common.wrapped"}
"""Written for members that are not here; it counts for who uses it."""


def starts() -> list[Place]:
    """Where all commands of rules and all members begin."""
    kinds = [(interface, kind) for interface in registry.INTERFACES for kind in registry.member_files(interface)]
    members = [(registry.member_path(*found), registry.member_class(*found).__name__) for found in kinds]
    return [*((PACKAGE / "commands" / f"{command}.py", "run") for command in COMMANDS), *members]


def test_every_module_counts_for_some_command_or_is_listed() -> None:
    counted = {path for path, name in Closure().places(starts()) if name and read_source(path).parts[name].digest}
    others = [path for path in PACKAGE.rglob("*.py") if path not in counted and counts((path, ""))]
    neither = [dotted(path) for path in others if set(read_source(path).parts) != {NAMELESS}]
    assert set(neither) == FOR_PLUGINS, "no command's digest holds it: is it used, or does it belong on CHANGES_NO_RESULT?"


def test_what_is_listed_is_there() -> None:
    for entry in CHANGES_NO_RESULT:
        base = PACKAGE.joinpath(*entry.split("."))
        there = base.is_dir() or base.with_suffix(".py").is_file()
        assert there or base.name in read_source(base.parent.with_suffix(".py")).parts, entry


def test_commands_of_rules_are_not_listed() -> None:
    commands = {path.stem for path in (PACKAGE / "commands").glob("*.py") if counts((path, ""))} - {"__init__"}
    assert commands == set(COMMANDS)


@pytest.mark.slow
def test_whatever_runs_counts(tiny_rooms_folder: Path, tmp_path: Path) -> None:
    """Every command runs in miniature and every call is watched: what the syntax trees do not show would be found here."""
    program = [sys.executable, "tests/ran.py", str(tiny_rooms_folder / "manifest.json"), str(tmp_path), *COMMANDS]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {command: facts["missed"] for command, facts in found.items()} == {command: [] for command in COMMANDS}
    assert all(facts["ran"] > 50 for facts in found.values())


# ----------------------------------------------------------------- plug-ins

TEACHER = """
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import Teacher, TeacherFeatures
from ._{kind}_parts import channels
from ._{kind}_kit import means


class Mine(Teacher):
    dim = channels()

    def grid(self, height_px, width_px):
        return TokenGrid(2, 2)

    def encode(self, scene):
        import numpy
        from lab_of_{kind} import scale
        return TeacherFeatures(tokens=scale(means(scene.rgb)), grid=self.grid(0, 0))
"""
FILES = {
    "teachers/_{kind}_parts.py": "def channels():\n    return 3\n",
    "teachers/_{kind}_kit/__init__.py": "from . import deep\nfrom .deep import means\n",
    "teachers/_{kind}_kit/deep.py": "def means(rgb):\n    return rgb.mean()\n",
    "lab_of_{kind}.py": "def scale(values):\n    return values * 2\n",
}
"""Beside the plug-in: a module and a package; elsewhere, where Python finds it: a module that is imported in a function."""


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plug-in teacher with modules of its own."""
    name = "mine"
    for file, text in (FILES | {"teachers/{kind}.py": TEACHER}).items():
        path = tmp_path / file.format(kind=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(kind=name), encoding="utf-8")
    monkeypatch.setenv("PIPELINE_PLUGINS", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def extract(kind: str, teacher: str) -> str:
    content = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    content["teachers"][kind] = {}
    return Specs(StudyConfig(content)).extract("rooms", teacher, "shard0")


def test_modules_of_a_plugin_count_for_it_and_for_nothing_else(kind: str, tmp_path: Path) -> None:
    assert registry.member_class("teachers", kind)("mine", Options()).dim == 3
    mine, geometry = extract(kind, kind), extract(kind, "geometry")
    for file in (name.format(kind=kind) for name in FILES):
        path = tmp_path / file
        text = path.read_text(encoding="utf-8")
        path.write_text("# a remark\n" + text, encoding="utf-8")
        assert extract(kind, kind) == mine, file
        path.write_text(text + "\n\ndef more():\n    return 1\n", encoding="utf-8")
        assert extract(kind, kind) != mine, file
        assert extract(kind, "geometry") == geometry, file
        path.write_text(text, encoding="utf-8")
    assert extract(kind, kind) == mine


def test_installed_packages_are_not_looked_into(kind: str) -> None:
    found = Closure().places([(registry.member_path("teachers", kind), "")])
    assert not [path for path, _ in found if "numpy" in path.parts]
