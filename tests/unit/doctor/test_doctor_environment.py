"""The environment: versions against the constraints, devices, Java and Open3D, without importing anything heavy."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from pipeline.doctor import environment
from pipeline.doctor.environment import WATCHED, Probe, Probes, Wanted, examine_environment

NOTHING = Wanted(java=False, open3d=False, gpu=False)


@pytest.fixture
def no_open3d(monkeypatch: pytest.MonkeyPatch) -> None:
    """New probes of the test ask a program that fails instead of importing Open3D."""
    failing = ["sh", "-c", "echo 'libGL.so.1 of this test is not there'; exit 1"]
    monkeypatch.setattr("pipeline.doctor.environment.OPEN3D", failing)


def rows_by_name(wanted: Wanted, probes: Probes) -> dict[str, environment.EnvironmentRow]:
    return {row.name: row for row in examine_environment(wanted, probes)[0]}


def test_this_environment_is_complete(probes: Probes) -> None:
    rows, needs = examine_environment(Wanted(java=True, open3d=True, gpu=False), probes)
    assert needs == ()
    found = {row.name: row for row in rows}
    assert {"python", "torch build", "java", "open3d"} <= set(found)
    assert found["open3d"].detail == f"imports, {importlib.metadata.version('open3d')}"
    assert "openjdk" in found["java"].detail.lower()


def test_every_watched_package_has_a_pin() -> None:
    assert set(WATCHED) <= set(environment.constraints())


def test_other_and_missing_versions(monkeypatch: pytest.MonkeyPatch, probes: Probes) -> None:
    """Installed versions are made up for this test."""

    def version(name: str) -> str:
        if name == "zarr":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"snakemake": "8.0.0", "torch": "2.13.0+cu128"}.get(name, environment.constraints()[name])

    monkeypatch.setattr("pipeline.doctor.environment.importlib.metadata.version", version)
    rows, needs = examine_environment(NOTHING, probes)
    found = {row.name: row for row in rows}
    assert (found["snakemake"].state, found["zarr"].state) == ("differs", "missing")
    assert "8.0.0" in found["snakemake"].detail
    assert "torch 2.13.0+cu128" in found["packages"].detail
    assert [need.what for need in needs] == [f"zarr: not installed (tested: {environment.constraints()['zarr']})"]


@pytest.mark.usefixtures("no_open3d")
def test_java_and_open3d_are_needed_only_by_studies_that_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.doctor.environment.java_home", lambda: None)
    without = Probes()
    rows, needs = examine_environment(NOTHING, without)
    assert {row.name for row in rows if row.state == "missing"} == {"java", "open3d"}
    assert needs == ()
    _, needs = examine_environment(Wanted(java=True, open3d=True, gpu=False), without)
    assert len(needs) == 2
    assert all(need.fix == "make setup" for need in needs)
    assert any("libGL.so.1" in need.what for need in needs)


def stub_of_nvidia_smi(folder: Path, script: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.usefixtures("no_open3d")
def test_devices_are_those_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stub_of_nvidia_smi(tmp_path, "echo 'NVIDIA Stub, 81559 MiB'; echo 'NVIDIA Stub, 81559 MiB'")
    probes = Probes()
    assert probes.gpus() == ["NVIDIA Stub, 81559 MiB"] * 2
    row = rows_by_name(Wanted(java=False, open3d=False, gpu=True), probes)
    assert "NVIDIA Stub" in row["torch build"].detail
    assert "GPU" not in row
    stub_of_nvidia_smi(tmp_path, "echo 'it could not communicate with the driver'; exit 9")
    assert Probes().gpus() == []


@pytest.mark.usefixtures("no_open3d")
def test_a_released_study_without_a_device_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stub_of_nvidia_smi(tmp_path, "exit 1")
    row = rows_by_name(Wanted(java=False, open3d=False, gpu=True), Probes())
    assert "need one on the machines that run the jobs" in row["GPU"].detail


def test_a_program_that_cannot_start_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Probe(["no-such-program-of-this-test"]).answer()[0] is False
    assert Probe(None).answer() == (False, ["cannot be started"])
    monkeypatch.setattr("pipeline.doctor.environment.TIMEOUT_S", 0.2)
    hanging = Probe(["sleep", "infinity"])
    assert hanging.answer() == (False, ["no answer within 0.2 s"])
    assert hanging.answer() == (False, ["no answer within 0.2 s"])
