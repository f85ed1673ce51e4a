"""Resume, restart, the lock, and a process killed in the middle of writing."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import BusyError, StoreError
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec

WRITER = """
import sys
import numpy as np
from pathlib import Path
from pipeline.features.store import FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.teachers.base import TeacherFeatures
spec = StoreSpec(dataset="rooms", teacher="oracle", kind="geometry", dim=64, rows=12, cols=16, dtype="float32")
with FeatureWriter(Path(sys.argv[1]), spec) as writer:
    for number in range(int(sys.argv[2])):
        scene = f"scene{number:03d}"
        if writer.is_done(scene):
            continue
        tokens = np.full((6, 12, 16, 64), number + 1, dtype=np.float32)
        writer.write(scene, [f"f{i}" for i in range(6)], TeacherFeatures(tokens, TokenGrid(12, 16)))
        print(scene, flush=True)
    writer.finish()
"""


def start_writer(folder: Path, scenes: int) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(folder), str(scenes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes())
        for f in sorted(folder.glob("features.zarr/tokens/**/*"))
        if f.is_file()
    }


def test_a_killed_writer_leaves_a_resumable_store(tmp_path: Path) -> None:
    for kill_after in (2, 9):
        process = start_writer(tmp_path, 40)
        assert process.stdout is not None
        for _ in range(kill_after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (tmp_path / "manifest.json").exists()
    spec = StoreSpec(dataset="rooms", teacher="oracle", kind="geometry", dim=64, rows=12, cols=16, dtype="float32")
    with FeatureWriter(tmp_path, spec) as writer:
        done = [n for n in range(40) if writer.is_done(f"scene{n:03d}")]
    assert 10 <= len(done) < 40
    kept = files_of(tmp_path)
    process = start_writer(tmp_path, 40)
    written, _ = process.communicate()
    assert process.returncode == 0
    assert len(written.split()) == 40 - len(done)
    after = files_of(tmp_path)
    finished = [name for name in kept if any(f"/scene{n:03d}/" in name for n in done)]
    assert all(after[name] == kept[name] for name in finished)
    reader = FeatureReader([tmp_path / "manifest.json"])
    for number in range(40):
        tokens = reader.read(f"scene{number:03d}", [f"f{i}" for i in range(6)]).tokens
        assert (tokens == number + 1).all()


def test_half_a_journal_line_costs_one_scene(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    with FeatureWriter(tmp_path, spec) as writer:
        for scene_id in "ab":
            writer.write(scene_id, frames, features_of(scene_id))
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    with FeatureWriter(tmp_path, spec) as writer:
        assert (writer.is_done("a"), writer.is_done("b")) == (True, False)


def test_another_spec_starts_over(complete_shard: Path, spec: StoreSpec, features_of, frames) -> None:
    complete_shard.unlink()
    with FeatureWriter(complete_shard.parent, dataclasses.replace(spec, weights="beef")) as writer:
        assert not any(writer.is_done(s) for s in "abc")
        assert not complete_shard.exists()
        assert not (complete_shard.parent / "features.zarr").exists()
        writer.write("a", frames, features_of("a"))
        writer.finish()
    assert FeatureReader([complete_shard]).scene_ids == ("a",)


def test_a_complete_shard_is_left_alone(complete_shard: Path, spec: StoreSpec, features_of, frames) -> None:
    before, manifest = files_of(complete_shard.parent), complete_shard.read_bytes()
    with FeatureWriter(complete_shard.parent, spec) as writer:
        assert complete_shard.exists()
        writer.write("a", frames, features_of("other"))
        writer.finish()
    assert files_of(complete_shard.parent) == before
    assert complete_shard.read_bytes() == manifest


def test_manifest_deleted_or_journal_lost(complete_shard: Path, spec: StoreSpec) -> None:
    manifest = complete_shard.read_bytes()
    complete_shard.unlink()
    with FeatureWriter(complete_shard.parent, spec) as writer:
        writer.finish()
    assert complete_shard.read_bytes() == manifest
    (complete_shard.parent / "journal.jsonl").unlink()
    with FeatureWriter(complete_shard.parent, spec) as writer:
        assert all(writer.is_done(s) for s in "abc")


def test_other_frames_of_a_stored_scene_replace_it(complete_shard: Path, spec: StoreSpec, features_of) -> None:
    with FeatureWriter(complete_shard.parent, spec) as writer:
        writer.write("a", ("n0", "n1"), features_of("new", views=2))
        writer.finish()
    found = FeatureReader([complete_shard]).read("a", ("n0", "n1"))
    np.testing.assert_allclose(found.tokens, features_of("new", views=2).tokens, rtol=2**-8)


def test_finish_drops_unwanted_scenes_and_demands_wanted_ones(complete_shard: Path, spec: StoreSpec) -> None:
    with FeatureWriter(complete_shard.parent, spec) as writer:
        with pytest.raises(StoreError, match="not stored, first 'z'"):
            writer.finish(["a", "z"])
        writer.finish(["a", "c"])
    assert FeatureReader([complete_shard]).scene_ids == ("a", "c")
    assert not (complete_shard.parent / "features.zarr/tokens/b").exists()


def test_manifest_does_not_depend_on_the_order_of_writing(tmp_path: Path, spec: StoreSpec, features_of, frames) -> None:
    manifests = []
    for order in ("abc", "cab"):
        with FeatureWriter(tmp_path / order, spec) as writer:
            for scene_id in order:
                writer.write(scene_id, frames, features_of(scene_id))
            writer.finish()
        manifests.append((tmp_path / order / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]


def test_a_second_writer_is_refused_and_a_dead_one_succeeded(tmp_path: Path, spec: StoreSpec) -> None:
    with FeatureWriter(tmp_path, spec), pytest.raises(BusyError, match=f"pid {os.getpid()} on"):
        FeatureWriter(tmp_path, spec)
    (tmp_path / "writer.lock").write_text('{"pid": 1, "host": "elsewhere"}')
    with FeatureWriter(tmp_path, spec):
        pass
