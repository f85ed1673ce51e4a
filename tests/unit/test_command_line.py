"""What a user sees when a command is stopped from the keyboard."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_verb_says_so_without_a_traceback_and_keeps_its_scenes(tmp_path: Path, threads: int) -> None:
    spec = json.dumps({"dataset": {"name": "many", "kind": "rooms", "options": {"train": 5000}}})
    out = tmp_path / "scenes" / "manifest.json"
    command = [sys.executable, "-m", "pipeline", "prepare", "--spec", spec, "--out", str(out), "--threads", str(threads)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        deadline = time.monotonic() + 60
        while len(list(out.parent.glob("posed_images/*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "prepare: interrupted" in said
    assert "Traceback" not in said
    assert not out.exists()
    assert len(list(out.parent.glob("posed_images/*"))) >= 3
