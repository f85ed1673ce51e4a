"""Which GPU a process takes, and that every verb which computes with a network asks in the same way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from box_rooms import make_scene, write_dataset

from pipeline import device as module
from pipeline.__main__ import main
from pipeline.device import claim, device

TEACHER = {"name": "vggt_rooms", "kind": "vggt", "options": {"size": "rooms", "pretrain": {"dataset": "boxes"}}}
BACKBONE = {"name": "internvl_tiny", "kind": "internvl", "options": {"size": "tiny", "pretrain": {"dataset": "boxes"}}}
GEOMETRY = {"name": "geometry", "kind": "geometry", "options": {}}
SPECS: dict[str, dict[str, Any]] = {
    "extract": {"dataset": "boxes", "teacher": GEOMETRY, "shard": 0, "shards": 1, "splits": ["train"]},
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
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    with device(1) as first, device(1) as second:
        assert (first, second) == ("cuda:0", "cuda:1")
    with device(1) as again:
        assert again == "cuda:0"
    assert used == [0, 1, 0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("verb", sorted(SPECS))
def test_a_gpu_that_is_not_there_is_told_by_every_verb(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    index = write_dataset(tmp_path / "scenes", [make_scene("box0", views=2, size=(24, 32))])
    out = tmp_path / "out" / "manifest.json"
    more = ["--run", str(tmp_path / "run.json")] if verb == "predict" else []
    given = ["--spec", json.dumps(SPECS[verb]), "--scenes", str(index.path), "--out", str(out), *more]
    assert main([verb, *given, "--gpus", "1"]) == 2
    message = capsys.readouterr().err
    assert "1 GPU asked for and none can be used" in message
    assert "CUDA_VISIBLE_DEVICES='3'" in message
    assert "--gpus 0" in message


def test_the_cpu_needs_no_torch() -> None:
    code = "import sys; from pipeline.device import device; w = device(0); print(w.__enter__(), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.split() == ["cpu", "False"]
