"""Which GPU a process takes, and that every command which computes with a network asks in the same way."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from box_rooms import make_scene, write_dataset

from pipeline.__main__ import main
from pipeline.core import runtime as module
from pipeline.core.runtime import claim, device

TEACHER = {"name": "vggt_rooms", "kind": "vggt", "options": {"size": "rooms", "pretrain": {"dataset": "boxes"}}}
BACKBONE = {"name": "internvl_tiny", "kind": "internvl", "options": {"size": "tiny", "pretrain": {"dataset": "boxes"}}}
GEOMETRY = {"name": "geometry", "kind": "geometry", "options": {}}
STORE = {"dtype": "bfloat16", "grid": "native", "compression": "none"}
SPECS: dict[str, dict[str, Any]] = {
    "extract": {"dataset": "boxes", "teacher": GEOMETRY, "shard": 0, "shards": 1, "splits": ["train"], "store": STORE},
    "train": {},
    "predict": {},
    "pretrain_teacher": {"teacher": TEACHER},
    "pretrain_backbone": {"backbone": BACKBONE},
}


def test_every_process_takes_a_gpu_of_its_own(tmp_path: Path, capsys) -> None:
    """Locks on pretended names: the first free one is taken, and with none free the first is shared aloud."""
    first, one = claim(["GPU-a", "GPU-b"], tmp_path)
    second, two = claim(["GPU-a", "GPU-b"], tmp_path)
    assert (first, second) == (0, 1)
    assert claim(["GPU-a", "GPU-b"], tmp_path) == (0, None)
    assert "all 2 visible GPUs are in use" in capsys.readouterr().err
    assert one is not None
    one.close()
    again, three = claim(["GPU-a", "GPU-b"], tmp_path)
    assert again == 0
    for lock in (two, three):
        assert lock is not None
        lock.close()


def test_the_gpu_is_held_as_long_as_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAKED: two GPUs by name, as no machine of the tests has one."""
    used: list[int] = []
    monkeypatch.setattr(module, "_visible_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(module, "_use", used.append)
    monkeypatch.setattr(module, "lock_folder", lambda: tmp_path)
    with device(1) as first, device(1) as second:
        assert (first, second) == ("cuda:0", "cuda:1")
    with device(1) as again:
        assert again == "cuda:0"
    assert used == [0, 1, 0]


def _as_a_pipe(path: Path) -> None:
    os.mkfifo(path, 0o700)


def _as_a_link(path: Path) -> None:
    path.with_name("elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.with_name("elsewhere"))


def _as_a_folder_for_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _as_another_users(path: Path) -> None:
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        path.chmod(0o755)  # no other user is at hand: rights of others are refused in the same way


@pytest.mark.parametrize("put", [_as_a_pipe, _as_a_link, _as_a_folder_for_all, _as_another_users])
def test_nobody_else_can_block_or_redirect_the_lock_of_a_gpu(
    put: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What others put under our name in the shared temporary folder is left alone: the user's own runtime folder serves."""
    shared, own = tmp_path / "tmp", tmp_path / "run"
    shared.mkdir()
    own.mkdir(mode=0o700)
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(shared))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
    found = module.lock_folder()
    assert found is not None
    assert found.parent == shared
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    found.rmdir()
    put(found)
    again = module.lock_folder()
    assert again == own / found.name
    _, lock = claim(["GPU-a"], again)
    assert lock is not None
    lock.close()
    assert not list(shared.glob("*/*"))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert claim(["GPU-a"], module.lock_folder()) == (0, None)
    assert "other jobs of this machine may use the same GPU" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", sorted(SPECS))
def test_a_gpu_that_is_not_there_is_told_by_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    index = write_dataset(tmp_path / "scenes", [make_scene("box0", views=2, size=(24, 32))])
    out = tmp_path / "out" / "manifest.json"
    more = ["--run", str(tmp_path / "run.json")] if command == "predict" else []
    given = ["--spec", json.dumps(SPECS[command]), "--scenes", str(index.path), "--out", str(out), *more]
    assert main([command, *given, "--gpus", "1"]) == 2
    message = capsys.readouterr().err
    assert "1 GPU asked for and none can be used" in message
    assert "CUDA_VISIBLE_DEVICES='3'" in message
    assert "--gpus 0" in message


def test_the_cpu_needs_no_torch() -> None:
    code = "import sys; from pipeline.core.runtime import device; w = device(0); print(w.__enter__(), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.split() == ["cpu", "False"]
