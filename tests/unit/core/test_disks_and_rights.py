"""Full disks, limits of file sizes, rights of other users, pipes in place of files: one message, nothing half done is left.

Every command is run for real on a study in miniature; the system itself refuses, nothing is faked.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from every_command import Command, study_commands
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from pipeline.__main__ import commands, main
from pipeline.core.faults import environment_fault
from pipeline.core.files import UNFINISHED, entries, refuse_special_files, replacing
from pipeline.core.provenance import write_atomic
from pipeline.features.store import FeatureReader
from pipeline.scenes.index import SceneIndex

ROOT = Path(__file__).parents[3]
WITHOUT_FILES = {"check", "doctor", "schema"}
"""Commands that only print."""
FILLING = ("prepare", "pretrain_teacher", "pretrain_backbone", "train", "predict")
NOBODY = 65534


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def no_file_above(limit: int) -> Iterator[None]:
    """Files of this process may not grow beyond ``limit`` bytes: EFBIG, as on a full disk ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read and write everything; any other user stays who it is."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def study(tiny_rooms: SceneIndex, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    """The commands of a whole study, which has run (umask 027)."""
    found = study_commands(tmp_path_factory.mktemp("study"), tiny_rooms)
    threads = torch.get_num_threads()
    try:
        with umask(0o027):
            for command in found.values():
                assert main(command.arguments()) == 0, command.command
    finally:
        torch.set_num_threads(threads)
    return found


def results(study: dict[str, Command]) -> Path:
    return next(parent for parent in study["train"].out.parents if parent.name == "results")


def test_every_command_is_tried(study: dict[str, Command]) -> None:
    assert set(study) | WITHOUT_FILES == set(commands())


def test_every_file_has_the_mode_that_the_umask_allows(study: dict[str, Command]) -> None:
    """safetensors writes files of mode 0600; another user of the group must be able to read what a study leaves."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in results(study).rglob("*")}
    wrong = {str(path): oct(mode) for path, mode in modes.items() if mode != (0o750 if path.is_dir() else 0o640)}
    assert {path.name for path in modes} >= {"model.safetensors", "heads.safetensors", "tokenizer.json", "index.html"}
    assert not wrong


def test_nothing_temporary_is_left(study: dict[str, Command]) -> None:
    left = [path for path in results(study).rglob("*") if re.search(r"\.tmp$|\.lock$|unfinished", path.name)]
    assert not left


FAULTS = [(command, 300) for command in sorted(set(commands()) - WITHOUT_FILES)]
FAULTS += [(command, 30_000) for command in ("pretrain_teacher", "pretrain_backbone", "train")]
"""(command, largest file): 300 bytes stop the first file, 30,000 the weights (of safetensors, or of torch in a checkpoint)."""


@pytest.mark.parametrize(("name", "limit"), FAULTS)
def test_a_file_that_may_not_grow_is_one_message(
    study: dict[str, Command], name: str, limit: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = study[name].to(tmp_path / "out" / study[name].out.name)
    threads = torch.get_num_threads()
    with no_file_above(limit):
        ended = main(command.arguments())
    torch.set_num_threads(threads)
    said = capsys.readouterr().err
    assert ended == 2, said
    assert "EnvironmentFaultError: file too large" in said
    assert str(tmp_path / "out") in said or name == "bench"  # which measures in a folder of its own first
    assert "fix: " in said
    assert not command.out.exists()
    assert not [path for path in tmp_path.rglob("*") if UNFINISHED in path.name or path.suffix == ".lock"]


@pytest.mark.parametrize("command", FILLING)
def test_a_folder_that_may_not_be_written_is_named(
    study: dict[str, Command], command: str, open_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_folder.chmod(0o555)
    try:
        with as_nobody():
            ended = main(study[command].to(open_folder / "out" / "manifest.json").arguments())
    finally:
        open_folder.chmod(0o755)
    said = capsys.readouterr().err
    assert ended == 2
    assert "Permission denied" in said
    assert str(open_folder / "out") in said


@pytest.mark.parametrize("name", ["model.safetensors", "heads.safetensors", "tokenizer.json", "manifest.json"])
def test_a_file_that_may_not_be_read_is_not_called_missing(
    study: dict[str, Command], name: str, open_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """safetensors says "No such file or directory" of every file that it cannot open."""
    run = shutil.copytree(study["train"].out.parent, open_folder / "run")
    scenes = shutil.copytree(Path(study["predict"].rest[1]).parent, open_folder / "scenes")
    for path in (run, *run.rglob("*"), scenes, *scenes.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (run / name).chmod(0)
    out = open_folder / "out"
    out.mkdir()
    out.chmod(0o777)
    spec = json.dumps(study["predict"].spec)
    arguments = ["predict", "--spec", spec, "--scenes", str(scenes / "manifest.json"), "--run", str(run / "manifest.json")]
    with as_nobody():
        ended = main([*arguments, "--out", str(out / "manifest.json")])
    said = capsys.readouterr().err
    assert ended == 2
    assert "Permission denied" in said
    assert str(run / name) in said
    assert "fix:     let this user read" in said
    assert "not exist" not in said
    assert "No such file" not in said


def test_files_that_may_not_be_read_are_not_called_damaged(study: dict[str, Command], open_folder: Path) -> None:
    """The fix for damaged features removes them, and damaged scenes are made again."""
    shard = shutil.copytree(study["extract"].out.parent, open_folder / "shard")
    scenes = shutil.copytree(Path(study["predict"].rest[1]).parent, open_folder / "scenes")
    for path in (shard, *shard.rglob("*"), scenes, *scenes.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    reader, index = FeatureReader([shard / "manifest.json"]), SceneIndex(scenes / "manifest.json")
    scene = reader.scene_ids[0]
    closed = (shard / "features.zarr" / "tokens" / scene, index.root / scene)
    for path in closed:
        path.chmod(0)
    with as_nobody():
        for read in (lambda: reader.read(scene, reader.frame_ids(scene)), lambda: index.load(scene)):
            with pytest.raises(PermissionError) as error:
                read()
            assert "let this user read" in str(environment_fault(error.value))
    for path in closed:
        path.chmod(0o755)


def test_a_full_disk_behind_the_printed_output_is_a_message() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "schema"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("EnvironmentFaultError: no space is left on the disk")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_what_killed_tries_left_is_removed_by_the_next(study: dict[str, Command], tmp_path: Path) -> None:
    """Folders of half-written weights, a checkpoint, a file: whoever gets the folder's lock knows that no writer lives."""
    out = tmp_path / "run" / "manifest.json"
    for name in (f".x{UNFINISHED}", f"checkpoints/.step00000001.123{UNFINISHED}", f"training/.y{UNFINISHED}"):
        (out.parent / name).mkdir(parents=True)
        (out.parent / name / "model.safetensors").write_bytes(b"half")
    (out.parent / f".metrics.jsonl{UNFINISHED}").write_bytes(b"half")
    (out.parent / "writer.lock").write_text('{"pid": 1, "host": "elsewhere"}')  # of a process that died
    (out.parent / ".mine.tmp").write_bytes(b"")
    assert main(study["train"].to(out).arguments()) == 0
    names = {path.name for path in out.parent.rglob("*")}
    assert not {name for name in names if UNFINISHED in name or name == "writer.lock"}
    assert {".mine.tmp", "manifest.json"} < names


HOLDER = """
import sys
from pathlib import Path
from pipeline.core.locks import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_on_a_folder_names_the_first(
    study: dict[str, Command], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Snakemake was killed its jobs may live on: the rerun says so and leaves their files alone."""
    pipe = subprocess.PIPE
    out = tmp_path / "manifest.json"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        half = tmp_path / f".half{UNFINISHED}"
        half.write_bytes(b"theirs")
        for command in FILLING:
            assert main(study[command].to(out).arguments()) == 2
            said = capsys.readouterr().err
            assert f"BusyError: another process (pid {other.pid} on " in said
            assert "still working on this folder" in said
        assert half.exists()
        assert list(tmp_path.iterdir()) != []
        other.kill()
    assert main(study["prepare"].to(out).arguments()) == 0
    assert not half.exists()


def test_writers_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    """A living writer's file is not taken for a leftover; a dead one's is."""
    path = tmp_path / "table.parquet"
    leftover = tmp_path / f".table.parquet{UNFINISHED}"
    leftover.write_bytes(b"of a killed try")
    with replacing(path) as stream:
        second = threading.Thread(target=write_atomic, args=(path, b"second"))
        second.start()
        stream.write(b"first")
        assert leftover.exists()
    second.join()
    assert path.read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with no_file_above(100), pytest.raises(OSError, match="File too large") as caught:
        write_atomic(path, "x" * 1000)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@contextmanager
def pipe_at(path: Path) -> Iterator[None]:
    """A named pipe in place of a file. Whoever opens it gets no byte instead of waiting, so that a fault ends this test."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with subprocess.Popen(["sh", "-c", 'while :; do : > "$1"; done', "sh", str(path)]) as feeder:
        try:
            yield
        finally:
            feeder.kill()


INPUTS = {
    "posed_images/{scene}/{frame}.jpg": "predict",
    "manifest.json": "predict",
    "annotations/{annotation}": "predict",
    "run/model.safetensors": "predict",
    "run/heads.safetensors": "predict",
    "run/config.json": "predict",
    "run/manifest.json": "predict",
    "predictions/scanrefer.parquet": "score",
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_named_pipe_in_place_of_a_file_is_refused(
    study: dict[str, Command], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = shutil.copytree(Path(study["predict"].rest[1]).parent, tmp_path / "scenes")
    run = shutil.copytree(study["train"].out.parent, tmp_path / "run")
    predictions = shutil.copytree(study["predict"].out.parent, tmp_path / "predictions")
    index = SceneIndex(scenes / "manifest.json")
    record = index.split("test")[0]
    annotation = index.annotation_files("scanrefer", "test")[0].name
    place = name.format(scene=record.scene_id, frame=record.frame_ids[0], annotation=annotation)
    path = tmp_path / place if name.startswith(("run", "predictions")) else scenes / place
    command = INPUTS[name]
    given = (
        ["--run", str(run / "manifest.json")] if command == "predict" else ["--predictions", str(predictions / "manifest.json")]
    )
    out = ["--out", str(tmp_path / "out" / study[command].out.name)]
    spec = json.dumps(study[command].spec)
    with pipe_at(path):
        ended = main([command, "--spec", spec, "--scenes", str(scenes / "manifest.json"), *given, *out])
    said = capsys.readouterr().err
    assert ended == 2, said
    assert "it is a named pipe, not a file" in said
    assert place.rsplit("/", 1)[-1] in said


def test_pipes_and_devices_are_refused_by_every_reader(tmp_path: Path) -> None:
    refuse_special_files()
    link = tmp_path / "link.png"
    link.symlink_to("/dev/zero")
    with pipe_at(tmp_path / "a.png"):
        for read in (Path.read_bytes, Path.read_text, Image.open, np.loadtxt, np.load, lambda path: os.open(path, os.O_RDONLY)):
            with pytest.raises(OSError, match="it is a named pipe, not a file"):
                read(tmp_path / "a.png")
    with pytest.raises(OSError, match="it is a device, not a file"):
        link.read_bytes()
    assert Path("/dev/null").read_bytes() == b""


def test_check_reads_what_a_shell_gives_it_as_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """``check <(command)`` opens /dev/fd/N, which is meant to be a pipe."""
    reading, writing = os.pipe()
    os.write(writing, (ROOT / "config.yaml").read_bytes()[:0] + b"{}\n")
    os.close(writing)
    main(["check", str(ROOT / "config.yaml"), f"/dev/fd/{reading}"])
    os.close(reading)
    assert "pipe" not in capsys.readouterr().err


def test_a_folder_that_may_not_be_listed_is_not_called_empty(open_folder: Path) -> None:
    """``glob`` finds nothing in it without a word."""
    (open_folder / "00000.jpg").write_bytes(b"")
    assert entries(open_folder, "*.jpg") == [open_folder / "00000.jpg"]
    assert entries(open_folder, "*.png") == []
    open_folder.chmod(0o311)
    with as_nobody():
        with pytest.raises(PermissionError):
            entries(open_folder, "*.jpg")
        assert list(open_folder.glob("*.jpg")) == []
    open_folder.chmod(0o755)


def test_libraries_that_wrap_the_system_are_understood(tmp_path: Path) -> None:
    """safetensors and tokenizers raise exceptions of their own; torch one about its archive, to a file and to a stream."""
    weights = {"a": torch.zeros(100_000)}
    words = Tokenizer(models.WordLevel({f"word{i}": i for i in range(5000)}, unk_token="word0"))

    def to_stream() -> None:
        with (tmp_path / "b.pt").open("wb") as stream:
            torch.save(weights, stream)

    for write, said in (
        (lambda: save_file(weights, tmp_path / "a.safetensors"), "file too large"),
        (lambda: words.save(str(tmp_path / "tokenizer.json")), "file too large"),
        (to_stream, "file too large"),
        (lambda: torch.save(weights, tmp_path / "a.pt"), "could not be written"),
    ):
        with no_file_above(1000), pytest.raises(Exception, match=r"os error|unexpected pos") as caught:
            write()
        fault = environment_fault(caught.value, tmp_path)
        assert fault is not None
        assert said in fault.what
        assert fault.where == str(tmp_path)


def test_a_bug_is_not_called_a_fault_of_the_disk(tmp_path: Path) -> None:
    """Not even one in code that handles such a fault, and no number of the system that no user can fix."""

    def bug() -> object:
        try:
            return (tmp_path / "missing").read_bytes()
        except FileNotFoundError:
            return {}["key"]

    with pytest.raises(KeyError) as caught:
        bug()
    assert isinstance(caught.value.__context__, FileNotFoundError)
    assert environment_fault(caught.value) is None
    assert environment_fault(OSError("no number")) is None
    assert environment_fault(OSError(errno.EDOM, "a number")) is None
    assert environment_fault(RuntimeError("shapes differ")) is None
