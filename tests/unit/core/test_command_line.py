"""What a user sees when a command is stopped from the keyboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.__main__ import main, parser
from pipeline.core.errors import ConfigError
from pipeline.core.provenance import digest

ROOT = Path(__file__).parents[3]
PARENT = """
import os, sys
from pipeline.core.workers import in_processes

def pid_of(job):
    return os.getpid()

if __name__ == "__main__":
    for pid in in_processes(pid_of, [0], 2, doing="waiting"):
        print(pid, flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_verb_says_so_without_a_traceback_and_keeps_its_scenes(tmp_path: Path, threads: int) -> None:
    spec = json.dumps({"dataset": {"name": "many", "kind": "rooms", "options": {"train": 5000}}})
    out = tmp_path / "scenes" / "manifest.json"
    command = [sys.executable, "-m", "pipeline", "prepare", "--spec", spec, "--out", str(out), "--threads", str(threads)]
    # A process group of its own, as a terminal's; SIGINT as there, too: jobs in the background of a shell ignore it.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while len(list(out.parent.glob("posed_images/*"))) < 5 and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "prepare: interrupted" in said
    assert "Traceback" not in said
    assert not out.exists()
    assert len(list(out.parent.glob("posed_images/*"))) >= 3


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(script)], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        os.kill(int(parent.stdout.readline()), 0)  # the worker is there
        parent.kill()
        parent.wait()
        # The worker holds the other end of the pipe: this returns when it has ended, and never if it lives on.
        assert parent.stdout.read() == ""


@pytest.mark.parametrize("name", ["prepare", "pretrain_teacher", "pretrain_backbone", "extract", "train", "predict", "score"])
def test_a_specification_without_its_keys(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that takes one says which key it lacks: `--spec '{}'` was a KeyError."""
    command = [name, "--spec", "{}", "--out", str(tmp_path / "out" / "manifest.json")]
    needed = {"scenes": name != "prepare", "run": name == "predict", "predictions": name == "score"}
    for option, wanted in needed.items():
        command += [f"--{option}", str(tmp_path / f"{option}.json")] if wanted else []
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "--spec" in said or "does not exist" in said, said


@pytest.mark.parametrize("text", ["[]", "{", '{"a": NaN}', "@no_such_file", "@.", "[" * 100_000], ids=range(6))
def test_a_specification_that_is_no_json_object(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "--spec", text, "--out", "x"])
    assert caught.value.code == 2
    assert "argument --spec: not a JSON object" in capsys.readouterr().err


def test_a_key_is_missed_at_any_depth() -> None:
    spec = parser("prepare").parse_args(["prepare", "--out", "x", "--spec", '{"a": {"b": 1}}']).spec
    assert spec["a"]["b"] == 1
    for lacking in (spec, spec["a"]):
        with pytest.raises(ConfigError, match="the specification lacks the key 'kind'"):
            lacking["kind"]
    assert digest(spec) == digest({"a": {"b": 1}})


def test_a_reader_that_has_gone_is_no_fault() -> None:
    """`check | head` ended with a BrokenPipeError's traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "check"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
