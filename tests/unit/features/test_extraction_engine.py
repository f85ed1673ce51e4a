"""The extraction engine: order, bound, overlap, errors, and what it does when memory runs out."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_rooms import make_scene, write_dataset

from pipeline.__main__ import main
from pipeline.core.errors import EnvironmentFaultError, FrameError, StoreError
from pipeline.core.options import Options
from pipeline.features.engine import Concurrency, extract_shard
from pipeline.features.store import FeatureReader, FeatureWriter, StoreSpec
from pipeline.scenes.grid import TokenGrid
from pipeline.scenes.index import SceneIndex
from pipeline.scenes.types import Scene
from pipeline.teachers.base import Teacher, TeacherFeatures

SIZE, SCENES = (24, 32), 6


class MeanColourTeacher(Teacher):
    """For these tests: one token per view, its mean colour. ``room`` is how many views fit into its pretended memory."""

    def __init__(self, *, room: int = 99, set_dependent: bool = False, error: Callable[[], Exception] | None = None):
        super().__init__("mean_colour", Options())
        self.room, self.set_dependent = room, set_dependent
        self.error = error or (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
        self.passes: list[int] = []

    @property
    def dim(self) -> int:
        return 3

    def grid(self, height_px: int, width_px: int) -> TokenGrid:
        return TokenGrid(1, 1)

    def memory_advice(self) -> str:
        return "teachers.mean_colour: precision: bfloat16"

    def encode(self, scene: Scene) -> TeacherFeatures:
        self.passes.append(len(scene.rgb))
        if len(scene.rgb) > self.room:
            raise self.error()
        tokens = scene.rgb.mean((1, 2), dtype=np.float32)[:, None, None]
        return TeacherFeatures(tokens, TokenGrid(1, 1), np.full(tokens.shape[:3], 0.5, np.float32))


@pytest.fixture
def index(tmp_path: Path) -> SceneIndex:
    return write_dataset(tmp_path / "scenes", [make_scene(f"box{i}", views=5, size=SIZE) for i in range(SCENES)])


def writer_of(tmp_path: Path) -> FeatureWriter:
    return FeatureWriter(tmp_path / "shard0", StoreSpec("boxes", "mean_colour", "test", 3, 1, 1, dtype="float32"))


def run(index: SceneIndex, teacher: Teacher, tmp_path: Path, flight: Concurrency | None = None) -> FeatureReader:
    with writer_of(tmp_path) as writer:
        extract_shard(index, list(index), teacher, writer, flight)
        writer.finish()
    return FeatureReader([tmp_path / "shard0" / "manifest.json"])


def check(index: SceneIndex, reader: FeatureReader, *, depth: bool = True) -> None:
    for record in index:
        expected = MeanColourTeacher().encode(index.load(record.scene_id, depth=depth))
        found = reader.read(record.scene_id, record.frame_ids)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.confidence, expected.confidence)


@pytest.mark.parametrize("flight", [Concurrency(1, 1), Concurrency(1, 3), Concurrency(4, 6), Concurrency(3, 2)])
def test_any_flight_gives_the_same_store(index: SceneIndex, tmp_path: Path, flight: Concurrency) -> None:
    check(index, run(index, MeanColourTeacher(), tmp_path, flight))


def test_order_is_kept_and_the_number_in_flight_bounded(index: SceneIndex, tmp_path: Path, monkeypatch) -> None:
    """Scenes are decoded by several threads, the first ones slowest; they are encoded and written in order all the same."""
    lock, loaded, most, encoded, written = threading.Lock(), [0], [0], [], []
    second = threading.Event()
    load = index.load

    def counting_load(scene_id: str, *, depth: bool) -> Scene:
        with lock:
            loaded[0] += 1
            most[0] = max(most[0], loaded[0] - len(written))
        if scene_id == "box0":
            second.wait()  # the first scene is read until another one is, too
        else:
            second.set()
        return load(scene_id, depth=depth)

    class Watched(MeanColourTeacher):
        def prepare(self, scene: Scene) -> Scene:
            return scene

        def start(self, prepared: Scene) -> Callable[[], TeacherFeatures]:
            encoded.append(prepared.scene_id)
            return super().start(prepared)

    monkeypatch.setattr(index, "load", counting_load)
    with writer_of(tmp_path) as writer:
        write = writer.write

        def counted(scene: str, *rest: Any, **named: Any) -> None:
            write(scene, *rest, **named)
            written.append(scene)

        monkeypatch.setattr(writer, "write", counted)
        extract_shard(index, list(index), Watched(), writer, Concurrency(readers=3, scenes=4))
    assert encoded == written == [f"box{i}" for i in range(SCENES)]
    assert 1 < most[0] <= 4


def test_reading_encoding_and_writing_overlap(index: SceneIndex, tmp_path: Path, monkeypatch) -> None:
    """Each stage waits for another one to be at work on another scene: one after the other would never end."""
    read_second, encoding_second = threading.Event(), threading.Event()
    load = index.load

    def watched_load(scene_id: str, *, depth: bool) -> Scene:
        if scene_id == "box1":
            read_second.set()
        return load(scene_id, depth=depth)

    class Waiting(MeanColourTeacher):
        def encode(self, scene: Scene) -> TeacherFeatures:
            if scene.scene_id == "box0":
                read_second.wait()  # the second scene is read while the first is encoded
            if scene.scene_id == "box1":
                encoding_second.set()
            return super().encode(scene)

    monkeypatch.setattr(index, "load", watched_load)
    with writer_of(tmp_path) as writer:
        write = writer.write

        def watched_write(scene_id: str, *rest: Any, **named: Any) -> None:
            if scene_id == "box0":
                encoding_second.wait()  # the second scene is encoded while the first is written
            write(scene_id, *rest, **named)

        monkeypatch.setattr(writer, "write", watched_write)
        assert extract_shard(index, list(index), Waiting(), writer) == SCENES


def test_features_are_fetched_by_the_writer(index: SceneIndex, tmp_path: Path) -> None:
    """What ``start`` returns waits for a device; it must not hold up the next scene's start."""
    fetched: list[str] = []

    class Launching(MeanColourTeacher):
        def start(self, prepared: Scene) -> Callable[[], TeacherFeatures]:
            features = self.encode(prepared)
            return lambda: (fetched.append(threading.current_thread().name), features)[1]

    check(index, run(index, Launching(), tmp_path))
    assert len(fetched) == SCENES
    assert all(name.startswith("write") for name in fetched)


@pytest.mark.parametrize("flight", [Concurrency(1, 3), Concurrency(4, 6)])
def test_an_unreadable_frame_keeps_all_scenes_before_it(index: SceneIndex, tmp_path: Path, flight: Concurrency) -> None:
    frame = index.root / "box3" / f"{index.records['box3'].frame_ids[2]}.jpg"
    frame.write_bytes(frame.read_bytes()[:200])
    with writer_of(tmp_path) as writer:
        with pytest.raises(FrameError, match=str(frame)):
            extract_shard(index, list(index), MeanColourTeacher(), writer, flight)
        assert [writer.is_done(f"box{i}") for i in range(SCENES)] == [True, True, True, False, False, False]
    teacher = MeanColourTeacher()
    frame.unlink()
    with writer_of(tmp_path) as writer, pytest.raises(FrameError, match="missing"):
        extract_shard(index, list(index), teacher, writer, flight)
    assert teacher.passes == []


def test_features_that_are_not_finite_stop_with_a_message(index: SceneIndex, tmp_path: Path) -> None:
    class Broken(MeanColourTeacher):
        def encode(self, scene: Scene) -> TeacherFeatures:
            found = super().encode(scene)
            if scene.scene_id == "box2":
                found.tokens[1] = np.nan
            return found

    with writer_of(tmp_path) as writer:
        with pytest.raises(StoreError, match="not finite"):
            extract_shard(index, list(index), Broken(), writer, Concurrency(2, 4))
        assert [writer.is_done(f"box{i}") for i in range(3)] == [True, True, False]


def test_an_error_of_writing_stops_the_run(index: SceneIndex, tmp_path: Path, monkeypatch) -> None:
    teacher = MeanColourTeacher()
    with writer_of(tmp_path) as writer:
        write = writer.write

        def failing(scene_id: str, *rest: Any, **named: Any) -> None:
            if scene_id == "box1":
                raise OSError(errno.ENOSPC, "No space left on device")
            write(scene_id, *rest, **named)

        monkeypatch.setattr(writer, "write", failing)
        with pytest.raises(OSError, match="No space left"):
            extract_shard(index, list(index), teacher, writer, Concurrency(1, 2))
        assert writer.is_done("box0")
        assert not writer.is_done("box1")
    assert len(teacher.passes) < SCENES


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory."),
        lambda: MemoryError("Unable to allocate 9 GiB"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        lambda: RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    ],
)
def test_a_teacher_of_single_views_falls_back_to_fewer_per_pass(index: SceneIndex, tmp_path: Path, capsys, error) -> None:
    """Pretended shortage of memory: more than two views do not fit."""
    teacher = MeanColourTeacher(room=2, error=error)
    check(index, run(index, teacher, tmp_path, Concurrency(2, 4)))
    said = capsys.readouterr().err
    assert said.count("memory ran out") == 2  # 5 -> 3 -> 2, and never again for the other scenes
    assert "2 at once (the features are the same)" in said
    assert teacher.passes[:3] == [5, 3, 2]
    assert sum(teacher.passes[2:]) == 5 * SCENES


def test_a_teacher_of_sets_of_views_never_does(index: SceneIndex, tmp_path: Path) -> None:
    teacher = MeanColourTeacher(room=2, set_dependent=True)
    with writer_of(tmp_path) as writer, pytest.raises(EnvironmentFaultError) as found:
        extract_shard(index, list(index), teacher, writer)
    message = str(found.value)
    assert "depend on which views are encoded together" in message
    assert "CUDA out of memory" in message
    assert "teachers.mean_colour: precision: bfloat16" in message
    assert "datasets.boxes" in message
    assert teacher.passes == [5]


def test_a_single_view_that_does_not_fit_is_an_error(index: SceneIndex, tmp_path: Path) -> None:
    teacher = MeanColourTeacher(room=0)
    with writer_of(tmp_path) as writer, pytest.raises(EnvironmentFaultError, match="a single view does not fit"):
        extract_shard(index, list(index), teacher, writer)
    assert teacher.passes == [5, 3, 2, 1]


@pytest.mark.parametrize("stage", ["read", "written"])
def test_scenes_that_do_not_fit_beside_each_other_are_told(index: SceneIndex, tmp_path: Path, monkeypatch, stage: str) -> None:
    """Pretended shortage while the fourth scene is read or written: not the teacher's views are too many."""

    def full(scene_id: str, *rest: Any, **more: Any) -> Any:
        if scene_id == "box3":
            raise MemoryError("Unable to allocate 9 GiB")
        return original(scene_id, *rest, **more)

    with writer_of(tmp_path) as writer:
        place, name = (index, "load") if stage == "read" else (writer, "write")
        original = getattr(place, name)
        monkeypatch.setattr(place, name, full)
        with pytest.raises(EnvironmentFaultError, match=f"scene 'box3' was being .*{stage}") as found:
            extract_shard(index, list(index), MeanColourTeacher(), writer, Concurrency(2, 4))
        assert "--in-flight 1" in str(found.value)
        assert "Unable to allocate 9 GiB" in str(found.value)
        assert [writer.is_done(f"box{i}") for i in range(4)] == [True, True, True, False]


def test_other_errors_are_not_taken_for_a_shortage(index: SceneIndex, tmp_path: Path) -> None:
    teacher = MeanColourTeacher(room=0, error=lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with writer_of(tmp_path) as writer, pytest.raises(RuntimeError, match="mat1"):
        extract_shard(index, list(index), teacher, writer)
    assert teacher.passes == [5]


def test_depth_is_read_only_for_a_teacher_that_looks_at_it(index: SceneIndex, tmp_path: Path, monkeypatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise FrameError(f"{path} is not wanted")

    monkeypatch.setattr("pipeline.scenes.index.read_depth", refuse)
    colour_only = MeanColourTeacher(room=3)
    colour_only.reads_depth = False
    check(index, run(index, colour_only, tmp_path), depth=False)
    with pytest.raises(FrameError, match="is not wanted"):
        run(index, MeanColourTeacher(), tmp_path / "again")


def test_readers_follow_the_threads() -> None:
    assert Concurrency.of_threads(1) == Concurrency(1, 3)
    assert Concurrency.of_threads(8) == Concurrency(7, 9)
    assert Concurrency.of_threads(64).readers == 8


def test_progress_says_rate_and_time_left(index: SceneIndex, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.core.progress.LINE_EVERY_S", 0.0)
    run(index, MeanColourTeacher(), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert any("extract boxes/mean_colour: 3/6 scenes" in line and "scenes/s" in line and " left" in line for line in lines)
    run(index, MeanColourTeacher(), tmp_path)
    assert "6 of 6 scenes are stored already" in capsys.readouterr().err


def test_wrong_numbers_are_told(index: SceneIndex, tmp_path: Path, capsys) -> None:
    given = ["--scenes", str(index.path), "--out", str(tmp_path / "f" / "manifest.json"), "--readers", "0"]
    teacher = '{"name": "geometry", "kind": "geometry", "options": {}}'
    assert main(["extract", "--spec", f'{{"dataset": "boxes", "teacher": {teacher}}}', *given]) == 2
    assert "--readers 0" in capsys.readouterr().err
