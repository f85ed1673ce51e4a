"""Set-up: what of Open3D's system libraries is missing, and who may install it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from workflow_project import ROOT, Project

from pipeline.doctor.environment import PYTHONS

LDD = """\
        linux-vdso.so.1 (0x00007ffd)
        libEGL.so.1 => not found
        libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)
        libusb-1.0.so.0 => not found
        libEGL.so.1 => not found
"""


@pytest.fixture
def libraries() -> ModuleType:
    spec = importlib.util.spec_from_file_location("system_libraries", ROOT / "envs/system_libraries.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_missing_libraries_are_named_once(libraries: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libOpen3D.so.0.20").touch()
    answer = subprocess.CompletedProcess([], 0, stdout=LDD)
    monkeypatch.setattr(libraries.subprocess, "run", lambda *_, **__: answer)
    assert libraries.missing(tmp_path) == ["libEGL.so.1", "libusb-1.0.so.0"]
    assert set(libraries.missing(tmp_path)) <= libraries.PACKAGES.keys()


@pytest.mark.parametrize(
    ("user", "programs", "commands"),
    [
        (0, {"apt-get"}, ["apt-get install"]),
        (1000, {"apt-get", "sudo"}, ["sudo -n", "sudo -n"]),
        (1000, {"apt-get"}, []),
        (0, set(), []),
    ],
)
def test_packages_are_installed_with_rights_only(
    libraries: ModuleType, monkeypatch: pytest.MonkeyPatch, user: int, programs: set[str], commands: list[str]
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(libraries.os, "geteuid", lambda: user)
    monkeypatch.setattr(libraries.shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(libraries, "run", lambda *command, **_: started.append(command) is None)
    assert libraries.install(["libusb-1.0.so.0"]) is bool(commands)
    assert [" ".join(command[:2]) for command in started] == commands
    assert not commands or started[-1][-1] == "libusb-1.0-0"


PRETENDED = """#!/bin/sh
[ "$1" = --version ] && {{ echo Python {0}.9; exit 0; }}
[ "$1" = -m ] && {{ echo "venv by {0}"; exit 3; }}
case "$2" in
    *ensurepip*) exit {2} ;;
    *print*) echo {0} ;;
    *) exit {1} ;;
esac
"""
"""Stands for an interpreter: its version, whether that is a supported one (0: yes), whether it has the module venv."""


def pretended(folder: Path, name: str, version: str, supported: bool, venv: bool = True) -> None:
    path = folder / name
    path.write_text(PRETENDED.format(version, int(not supported), int(not venv)))
    path.chmod(0o755)


def set_up(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "envs").mkdir(exist_ok=True)
    (tmp_path / "envs/setup.sh").write_bytes((ROOT / "envs/setup.sh").read_bytes())
    for program in ("bash", "dirname"):
        link = tmp_path / "bin" / program
        if not link.exists():
            link.symlink_to(shutil.which(program) or program)
    environment = {"PATH": str(tmp_path / "bin"), **environment}
    command = ["bash", "envs/setup.sh"]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def test_set_up_takes_the_python_that_all_tests_run_on_else_a_newer_one(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    pretended(programs, "python3", "3.14", supported=False)
    done = set_up(tmp_path)
    assert done.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed, and python3 is Python 3.14.9." in done.stderr
    assert "make setup PYTHON=" in done.stderr
    pretended(programs, "python3.13", "3.13", supported=True, venv=False)
    done = set_up(tmp_path)
    assert done.returncode == 2
    assert "apt-get install python3.13-venv" in done.stderr
    pretended(programs, "python3.12", "3.12", supported=True)
    assert "venv by 3.12" in set_up(tmp_path).stdout
    pretended(programs, "python3.11", "3.11", supported=True)
    assert "venv by 3.11" in set_up(tmp_path).stdout
    assert "venv by 3.12" in set_up(tmp_path, PYTHON="python3.12").stdout
    assert not (tmp_path / ".venv").exists()


def test_one_list_of_supported_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    last = PYTHONS[-1].split(".")[1]
    assert project["requires-python"] == f">={PYTHONS[0]},<3.{int(last) + 1}"
    script = (ROOT / "envs/setup.sh").read_text(encoding="utf-8")
    assert f"(3, 11) <= sys.version_info[:2] <= (3, {last})" in script
    assert " ".join(f"python{version}" for version in PYTHONS) in script
    assert f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}" in (ROOT / "README.md").read_text(encoding="utf-8")


HOMES = {"not there": "/proc/none", "a file": "/etc/passwd", "read-only": "/proc"}


@pytest.mark.parametrize("home", HOMES)
def test_make_puts_caches_into_the_checkout_where_the_home_folder_cannot_be_written(tmp_path: Path, home: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    command = ["make", "--no-print-directory", "--eval", "show:; @echo $$XDG_CACHE_HOME", "show"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    for folder, expected in ((HOMES[home], f"{tmp_path}/.cache"), (str(tmp_path), "")):
        done = subprocess.run(command, cwd=tmp_path, env={**kept, "HOME": folder}, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("home", [*HOMES.values(), None])
def test_snakemake_starts_where_the_home_folder_cannot_be_written(fresh: Project, home: str | None) -> None:
    """It ended with 50 lines of traceback before it had read the workflow (profiles/default has the setting)."""
    command = ["env", "-u", "HOME", "-u", "XDG_CACHE_HOME", *([f"HOME={home}"] if home else [])]
    done = fresh.run(*command, "snakemake", "--cores", "1", "--dry-run", "results/scenes/rooms/manifest.json", check=False)
    assert done.returncode == 0, done.stdout
    assert "Job stats" in done.stdout
