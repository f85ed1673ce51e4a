"""The machine and the packages, looked at from outside: no heavy package is imported into this process."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.doctor.report import EnvironmentRow, Need
from pipeline.metrics.java import java_home

CONSTRAINTS = Path(__file__).parents[2] / "envs" / "constraints.txt"
WATCHED = ("torch", "transformers", "safetensors", "zarr", "snakemake", "numpy", "pandas", "pyarrow", "open3d")
"""Packages whose version decides results or file formats."""
PYTHONS = ("3.11", "3.12", "3.13")
"""Versions that all pinned packages are made for."""
OPEN3D: list[str | Path] = [sys.executable, "-c", "import open3d; print(open3d.__version__)"]
TIMEOUT_S = 300
"""Importing Open3D takes seconds, on a machine with many other jobs minutes; a driver that hangs must end some time."""
SETUP = "make setup"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The parts of the environment that the study uses: METEOR needs Java, rooms that are still to be made need Open3D."""

    java: bool
    open3d: bool
    gpu: bool


class Probe:
    """A program that is started at once and asked later, any number of times."""

    def __init__(self, command: list[str | Path] | None):
        self._process: subprocess.Popen[str] | None = None
        self._answer: tuple[bool, list[str]] = (False, ["cannot be started"])
        if command is None:
            return
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        except OSError as error:
            self._answer = (False, [f"cannot be started ({error.strerror})"])

    def answer(self) -> tuple[bool, list[str]]:
        """Return whether it ended well, and the lines that it wrote (one at least)."""
        process, self._process = self._process, None
        if process is not None:
            try:
                text, _ = process.communicate(timeout=TIMEOUT_S)
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                self._answer = (process.returncode == 0, lines or ["no answer"])
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                self._answer = (False, [f"no answer within {TIMEOUT_S} s"])
        return self._answer


class Probes:
    """The programs that are slow to answer, all running while everything else is looked at."""

    def __init__(self) -> None:
        home, smi = java_home(), shutil.which("nvidia-smi")
        self.open3d = Probe(OPEN3D)
        self.java = Probe([home / "bin" / "java", "-version"] if home else None)
        self._gpus = Probe([smi, "--query-gpu=name,memory.total", "--format=csv,noheader"] if smi else None)

    def gpus(self) -> list[str]:
        """Name and memory of every NVIDIA device that the driver shows."""
        ran, lines = self._gpus.answer()
        return lines if ran else []


def examine_environment(wanted: Wanted, probes: Probes) -> tuple[tuple[EnvironmentRow, ...], tuple[Need, ...]]:
    """Examine all parts of the environment; return them and those that the study needs but lacks."""
    rows = [_python(), *_packages(), _torch(probes), _java(probes), _open3d(probes)]
    needs = [_need(row) for row in rows if row.state == "missing" and _needed(row, wanted)]
    if wanted.gpu and not probes.gpus():
        rows.append(EnvironmentRow("GPU", "note", "none here; released models need one on the machines that run the jobs"))
    return tuple(rows), tuple(needs)


def _needed(row: EnvironmentRow, wanted: Wanted) -> bool:
    return {"java": wanted.java, "open3d": wanted.open3d}.get(row.name, True)


def _need(row: EnvironmentRow) -> Need:
    return Need("environment", f"{row.name}: {row.detail}", fix=SETUP)


def _python() -> EnvironmentRow:
    version = platform.python_version()
    return EnvironmentRow("python", "ok" if version.rpartition(".")[0] in PYTHONS else "differs", version)


def constraints() -> dict[str, str]:
    """Return package -> version of envs/constraints.txt; empty where the file is not shipped."""
    if not CONSTRAINTS.is_file():
        return {}
    found = re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def _packages() -> list[EnvironmentRow]:
    """Return one row for the watched packages that are as tested, one for each that is not."""
    pins = constraints()
    same: list[str] = []
    rows: list[EnvironmentRow] = []
    for name in WATCHED:
        pin = pins.get(name, "")
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows.append(EnvironmentRow(name, "missing", f"not installed{f' (tested: {pin})' if pin else ''}"))
            continue
        if version.split("+")[0] == pin:
            same.append(f"{name} {version}")
        else:
            rows.append(EnvironmentRow(name, "differs", f"{version}, tested {pin or 'with none'}"))
    return [EnvironmentRow("packages", "ok", ", ".join(same)), *rows] if same else rows


def _torch(probes: Probes) -> EnvironmentRow:
    """Return the build, read from torch's version file, and the devices that the driver shows."""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    facts = _constants(file) if file and file.is_file() else {}
    cuda, hip = facts.get("cuda"), facts.get("hip")
    build = f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else "CPU"
    devices = probes.gpus()
    shown = "; ".join(devices) if devices else "no NVIDIA device"
    if devices and not cuda:
        return EnvironmentRow("torch build", "differs", f"{build} only, but there are devices: {shown}")
    return EnvironmentRow("torch build", "ok", f"{build}; {shown}")


def _constants(path: Path) -> dict[str, object]:
    """Return constants that a module assigns at top level, without running it."""
    found: dict[str, object] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Constant):
            found |= {target.id: value.value for target in targets if isinstance(target, ast.Name)}
    return found


def _java(probes: Probes) -> EnvironmentRow:
    runs, lines = probes.java.answer()
    return EnvironmentRow("java", "ok" if runs else "missing", f"{lines[0]} (METEOR)")


def _open3d(probes: Probes) -> EnvironmentRow:
    runs, lines = probes.open3d.answer()
    return EnvironmentRow("open3d", "ok" if runs else "missing", f"imports, {lines[0]}" if runs else lines[-1])
