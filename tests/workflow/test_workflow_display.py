"""The display of `make run`: one line per start and end, the time left, faults without noise."""

from __future__ import annotations

import importlib.util
import logging
from types import ModuleType
from typing import Any

import pytest
from workflow_project import ROOT


@pytest.fixture
def plugin() -> ModuleType:
    path = ROOT / "workflow/logger/snakemake_logger_plugin_study/__init__.py"
    spec = importlib.util.spec_from_file_location("study_display", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _say(handler: Any, event: str | None, level: int = logging.INFO, message: str = "", **fields: Any) -> None:
    record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    record.__dict__.update(fields, **({"event": event} if event else {}))
    handler.emit(record)


def _job(handler: Any, number: int, rule: str, text: str) -> None:
    _say(handler, "job_info", jobid=number, rule_name=rule, rule_msg=text)


def test_clock(plugin: ModuleType) -> None:
    assert [plugin.clock(s) for s in (0, 59.9, 61, 3723)] == ["0:00", "0:59", "1:01", "1:02:03"]


def test_lines(plugin: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(plugin.time, "monotonic", lambda: now[0])
    handler = plugin.LogHandler(None, None)
    _say(handler, "resources_info", cores=2)
    _say(handler, "run_info", stats={"train": 5, "all": 1, "total": 6})
    _job(handler, 1, "train", "train  a")
    now[0] += 90
    _say(handler, "job_finished", job_id=1)
    _say(handler, None, message="Select jobs to execute...")
    _job(handler, 2, "train", "train  b")
    _say(handler, "job_error", jobid=2, rule_name="train", log=["b.log"])
    _say(handler, "error", logging.ERROR, "CalledProcessError: Command 'long' returned 2", exception="RuleException")
    _say(handler, "error", logging.ERROR, "Directory cannot be locked", exception="LockException")
    assert capsys.readouterr().err.splitlines() == [
        "6 jobs: 5 train; up to 2 at a time",
        "",
        "    0:00     0 of 6  start   train  a",
        "    1:30     1 of 6  done    train  a  (1:30)   about 3 min left",
        "    1:30     1 of 6  start   train  b",
        "    1:30     1 of 6  FAILED  train  b  (log: b.log)",
        "Directory cannot be locked",
    ]
