"""Full disks, crashes at any byte, two writers, many shards at once."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.core.errors import BusyError, EnvironmentFaultError
from pipeline.features import arrays
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec

ROOT = Path(__file__).parents[3]


def fake_full_disk(monkeypatch: pytest.MonkeyPatch, after_views: int, code: int = errno.ENOSPC) -> None:
    """A fake: the disk takes ``after_views`` more views, half of the next one, and is full then."""
    real, written = arrays.ArrayWriter.append, []

    def append(self: arrays.ArrayWriter, view: np.ndarray) -> None:
        written.append(view)
        if len(written) > after_views:
            self._stream.write(np.ascontiguousarray(view).tobytes()[: view.nbytes // 2])
            raise OSError(code, os.strerror(code))
        real(self, view)

    monkeypatch.setattr(arrays.ArrayWriter, "append", append)


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "no space is left"), (errno.EDQUOT, "quota is used up")])
def test_a_full_disk_keeps_finished_scenes(tmp_path: Path, spec, features_of, frames, monkeypatch, code, message) -> None:
    with monkeypatch.context() as patch, FeatureWriter(tmp_path, spec) as writer:
        fake_full_disk(patch, 7, code)
        writer.write("a", frames, features_of("a"))
        writer.write("b", frames, features_of("b"))
        with pytest.raises(EnvironmentFaultError, match=message) as caught:
            writer.write("c", frames, features_of("c"))
        assert "2 finished scenes are kept" in str(caught.value)
        assert not list(tmp_path.glob("features.zarr/*/c"))
    with FeatureWriter(tmp_path, spec) as writer:
        assert [writer.is_done(s) for s in "abc"] == [True, True, False]
        writer.write("c", frames, features_of("c"))
        writer.finish()
    assert FeatureReader([tmp_path / "manifest.json"]).scene_ids == ("a", "b", "c")


def test_other_disk_errors_are_not_called_a_full_disk(tmp_path: Path, spec, features_of, frames, monkeypatch) -> None:
    """A disk that fails is the machine's fault, too, under its own name; anything else would be a bug."""
    for code, expected, message in ((errno.EIO, EnvironmentFaultError, "the disk fails"), (errno.EDOM, OSError, "domain")):
        with monkeypatch.context() as patch, FeatureWriter(tmp_path, spec) as writer:
            fake_full_disk(patch, 1, code)
            with pytest.raises(expected, match=message) as caught:
                writer.write("a", frames, features_of("a"))
            assert "space" not in str(caught.value)
    assert not list(tmp_path.glob("features.zarr/*/a"))


def test_the_systems_own_refusal_of_bytes(tmp_path: Path, spec, features_of, frames) -> None:
    """No fake: the kernel refuses to let a file grow beyond a limit, at a byte in the middle of a view."""
    with FeatureWriter(tmp_path, spec) as writer:
        writer.write("a", frames, features_of("a"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1300, hard))
        try:
            with pytest.raises(EnvironmentFaultError, match="1 finished scenes are kept"):
                writer.write("b", tuple(f"f{i}" for i in range(30)), features_of("b", views=30))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.write("b", frames, features_of("b"))
        writer.finish()
    assert FeatureReader([tmp_path / "manifest.json"]).scene_ids == ("a", "b")


def test_a_full_disk_while_the_journal_is_written(tmp_path: Path, spec, features_of, frames, monkeypatch) -> None:
    """A fake fsync that fails for the journal only: its line is taken back, the next scene's line is whole."""
    from pipeline.features import journal

    real = os.fsync

    def fake_fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("journal.jsonl"):
            raise OSError(errno.ENOSPC, "full")
        real(descriptor)

    with FeatureWriter(tmp_path, spec) as writer:
        writer.write("a", frames, features_of("a"))
        with monkeypatch.context() as patch:
            patch.setattr(journal.os, "fsync", fake_fsync)
            with pytest.raises(EnvironmentFaultError):
                writer.write("b", frames, features_of("b"))
        writer.write("c", frames, features_of("c"))
    with FeatureWriter(tmp_path, spec) as writer:
        assert [writer.is_done(s) for s in "abc"] == [True, False, True]


def test_a_journal_cut_at_any_byte_keeps_the_scenes_before(tmp_path: Path, spec, features_of, frames) -> None:
    with FeatureWriter(tmp_path, spec) as writer:
        for scene_id in "ab":
            writer.write(scene_id, frames, features_of(scene_id))
    whole = (tmp_path / "journal.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    stores = {}
    for cut in sorted({0, 1, *range(ends[0] - 1, len(whole), 61), ends[1] - 1, ends[1], len(whole) - 1, len(whole)}):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        subprocess.run(["cp", "-r", str(tmp_path / "features.zarr"), str(folder)], check=True)
        (folder / "journal.jsonl").write_bytes(whole[:cut])
        with FeatureWriter(folder, spec) as writer:
            stores[cut] = [writer.is_done(s) for s in "ab"]
            writer.finish()
        reader = FeatureReader([folder / "manifest.json"])
        for scene_id in reader.scene_ids:
            np.testing.assert_allclose(reader.read(scene_id, frames).tokens, features_of(scene_id).tokens, rtol=2**-8)
        assert sorted(f.name for f in (folder / "features.zarr").glob("tokens/?")) == list(reader.scene_ids)
    for cut, done in stores.items():
        # A line whose newline is missing is whole all the same.
        assert done == [cut >= ends[1] - 1, cut >= ends[2] - 1], cut


def test_a_scene_cut_before_its_journal_line_is_written_again(tmp_path: Path, spec, features_of, frames) -> None:
    with FeatureWriter(tmp_path, spec) as writer:
        writer.write("a", frames, features_of("a"))
        lines = (tmp_path / "journal.jsonl").read_bytes()
        writer.write("b", frames, features_of("b"))
    (tmp_path / "journal.jsonl").write_bytes(lines)
    (path,) = (tmp_path / "features.zarr/tokens/b").glob("c.*")
    path.write_bytes(path.read_bytes()[:100])
    with FeatureWriter(tmp_path, spec) as writer:
        assert not path.exists()
        writer.write("b", frames, features_of("b"))
        writer.finish()
    found = FeatureReader([tmp_path / "manifest.json"]).read("b", frames)
    np.testing.assert_allclose(found.tokens, features_of("b").tokens, rtol=2**-8)


HOLDER = """
import sys
from pathlib import Path
from pipeline.core.locks import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_writer_in_another_process_is_refused_until_it_is_killed(tmp_path: Path, spec: StoreSpec) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(BusyError, match=f"another process \\(pid {other.pid} on .*still working on this folder"):
                FeatureWriter(tmp_path, spec)
        finally:
            other.kill()
    FeatureWriter(tmp_path, spec).close()


def test_shards_are_written_at_the_same_time(tmp_path: Path, spec: StoreSpec, features_of: Callable, frames) -> None:
    def write(shard: int) -> Path:
        with FeatureWriter(tmp_path / f"shard{shard}", spec) as writer:
            for scene_id in range(5):
                writer.write(f"s{shard}_{scene_id}", frames, features_of(f"s{shard}_{scene_id}"))
            writer.finish(shard=(shard, 4))
        return tmp_path / f"shard{shard}" / "manifest.json"

    with ThreadPoolExecutor(4) as pool:
        manifests = list(pool.map(write, range(4)))
    reader = FeatureReader(manifests)
    assert len(reader.scene_ids) == 20
    for scene_id in reader.scene_ids:
        np.testing.assert_allclose(reader.read(scene_id, frames).tokens, features_of(scene_id).tokens, rtol=2**-8)


def test_faults_end_with_exit_code_2(complete_shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (complete_shard.parent / "features.zarr/tokens/b").glob("c.*")
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["features", "verify", str(complete_shard), "--all"]) == 2
    said = capsys.readouterr()
    assert "scene 'b' are damaged" in said.out
    assert "2 of 3 scenes" in said.out
    assert "1 scenes of stored features are not what they should be, first b in" in said.err
