"""Set-up: what of Open3D's system libraries is missing, and who may install it."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from workflow_project import ROOT

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
