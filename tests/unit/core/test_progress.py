"""Progress on a terminal and in a log: how many per second, and the time left."""

from __future__ import annotations

import sys

import pytest

from pipeline.core.progress import Progress


def test_a_slow_bar_says_units_per_second_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A released model takes seconds per scene; tqdm alone would then turn the rate around."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("extract scannet/vggt_1b", 10, "scenes") as progress:
        for _ in range(4):
            now[0] += 5.0
            progress.step()
    last = capsys.readouterr().err.split("\r")[-1]
    assert "extract scannet/vggt_1b:  40%" in last
    assert "4/10 [00:20,  0.20 scenes/s, about 00:30 left]" in last


def test_a_log_says_the_rate_once_more_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("extract", 2, "scenes") as progress:
        progress.step(2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("extract: 2/2 scenes in ")
    assert line.endswith("scenes/s")
