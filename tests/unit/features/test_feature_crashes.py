"""A process killed, and a disk full, at every single step of writing a shard: nothing wrong is read, and a rerun ends the same.

The steps are those that the interpreter reports to audit hooks (files opened, folders made, names changed and removed) and
every write of bytes; for full disks the kernel itself refuses the bytes behind a limit. fsync is a fake that does nothing: it
matters when the power fails, not when a process does, and would be all of the time.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.core.errors import EnvironmentFaultError, StoreError
from pipeline.features import arrays
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.teachers.base import TeacherFeatures

STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
OTHER = ("n0", "n1", "n2")


class Steps:
    """Counts steps and acts at one of them; audit hooks cannot be removed, so it lives in a process that ends."""

    def __init__(self, act: Callable[[int], None]):
        self.count, self.act = 0, act
        sys.addaudithook(self.hook)
        real = arrays.ArrayWriter._write

        def half_by_half(writer: arrays.ArrayWriter, data: memoryview) -> None:
            real(writer, data[: len(data) // 2])
            self.step()
            real(writer, data[len(data) // 2 :])

        arrays.ArrayWriter._write = half_by_half  # type: ignore[method-assign]

    def hook(self, event: str, details: tuple[object, ...]) -> None:
        if event in STEPS and not (event == "open" and isinstance(details[0], str) and details[0].endswith(".py")):
            self.step()

    def step(self) -> None:
        self.count += 1
        self.act(self.count)


def in_child(body: Callable[[], int]) -> int:
    """Run in a forked process; its exit code, negative: the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            code = body()
        except BaseException:
            traceback.print_exc()
            code = 99
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def change(folder: Path, spec: StoreSpec, features_of: Callable[..., TeacherFeatures]) -> None:
    """Of a shard with scenes a, b and c: other frames for a, a new scene d, and b is no longer wanted."""
    with FeatureWriter(folder, spec) as writer:
        for scene_id, name in (("a", "new"), ("d", "d")):
            if not writer.is_done(scene_id, OTHER):
                writer.write(scene_id, OTHER, features_of(name, confidence=True))
        writer.finish(["a", "c", "d"])


def read_nothing_wrong(manifest: Path, features_of: Callable[..., TeacherFeatures], frames) -> None:
    """Whatever can be read is a scene as it was before or as it is afterwards."""
    if not manifest.exists():
        return
    reader = FeatureReader([manifest])
    for scene_id in reader.scene_ids:
        stored = reader.frame_ids(scene_id)
        made = features_of("new" if stored == OTHER and scene_id == "a" else scene_id).tokens
        assert stored in (frames, OTHER)
        with suppress(StoreError):  # says that it is damaged
            np.testing.assert_allclose(reader.read(scene_id, stored).tokens, made, rtol=2**-8)


def check_end(folder: Path, spec: StoreSpec, features_of: Callable[..., TeacherFeatures], frames, whole: bytes) -> None:
    """A rerun gives the very manifest, the features, a valid Zarr group and nothing else."""
    change(folder, spec, features_of)
    assert (folder / "manifest.json").read_bytes() == whole
    reader = FeatureReader([folder / "manifest.json"])
    assert reader.scene_ids == ("a", "c", "d")
    for scene_id, name, wanted in (("a", "new", OTHER), ("c", "c", frames), ("d", "d", OTHER)):
        np.testing.assert_allclose(reader.read(scene_id, wanted).tokens, features_of(name).tokens, rtol=2**-8)
        reader.verify(scene_id)
    assert sorted(zarr.open_group(folder / "features.zarr", mode="r")["tokens"].array_keys()) == ["a", "c", "d"]
    assert {f.name for f in folder.glob("features.zarr/*/*")} == {"a", "c", "d", "zarr.json"}


@pytest.fixture(autouse=True)
def fake_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def folders(tmp_path: Path, complete_shard: Path, spec: StoreSpec, features_of) -> tuple[Path, bytes]:
    """A shard to copy, and the manifest that ``change`` makes of it."""
    shutil.copytree(complete_shard.parent, tmp_path / "whole")
    change(tmp_path / "whole", spec, features_of)
    return complete_shard.parent, (tmp_path / "whole" / "manifest.json").read_bytes()


def test_killed_at_every_step(tmp_path: Path, folders, spec: StoreSpec, features_of, frames) -> None:
    before, whole = folders
    for last in range(1, 1000):
        folder = tmp_path / f"killed{last}"
        shutil.copytree(before, folder)

        def body(folder: Path = folder, last: int = last) -> int:
            Steps(lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == last else None)
            change(folder, spec, features_of)
            return 0

        ended = in_child(body)
        assert ended in (0, -signal.SIGKILL)
        read_nothing_wrong(folder / "manifest.json", features_of, frames)
        check_end(folder, spec, features_of, frames, whole)
        if ended == 0:
            break
    assert last > 40, last  # steps were met


@pytest.mark.parametrize("start", ["empty", "complete"])
def test_a_disk_that_is_full_at_every_size(tmp_path: Path, folders, spec, features_of, frames, start: str) -> None:
    """No file may grow beyond a limit: lock, descriptions, views, index, journal and manifest meet it one after the other."""
    before, whole = folders
    met = set()
    for limit in (0, 1, 20, 60, 100, 150, 190, 230, 400, 700, 900, 1100, 1300, 1600, 2000, 10**6):
        folder = tmp_path / f"full{limit}"
        folder.mkdir() if start == "empty" else shutil.copytree(before, folder)

        def body(folder: Path = folder, limit: int = limit) -> int:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                with FeatureWriter(folder, spec) as writer:
                    writer.write("a", OTHER, features_of("new", confidence=True))
                    writer.write("d", OTHER, features_of("d", confidence=True))
                    writer.finish()
            except EnvironmentFaultError as error:
                return 7 if "file too large" in str(error) else 8
            return 0

        ended = in_child(body)
        met.add(ended)
        assert ended in (0, 7)
        read_nothing_wrong(folder / "manifest.json", features_of, frames)
        with FeatureWriter(folder, spec) as writer:
            if not writer.is_done("c"):
                assert start == "empty"
                writer.write("c", frames, features_of("c", confidence=True))
        check_end(folder, spec, features_of, frames, whole)
    assert met == {0, 7}
