"""A display of progress for people: one line when a job starts and one when it ends, with the time that is left.

A Snakemake logger plugin, which `make setup` installs and `make run` uses. By hand: snakemake --cores all --logger study

Snakemake's own complete log is written under .snakemake/log as always. The time left is the mean time of each rule's
finished jobs times the jobs to come, so it is shown once every rule but the last, short ones has finished a job.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

_QUICK = {"all", "cell", "summary", "report"}
"""Rules of a few seconds at the end; the time left does not wait for them."""


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class LogHandler(LogHandlerBase):
    """Prints what starts, ends and fails; keeps warnings and errors; leaves the rest to the log file."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.start = time.monotonic()
        self.cores = 1
        self.jobs: dict[int, tuple[str, str, float]] = {}
        self.planned: Counter[str] = Counter()
        self.took: dict[str, list[float]] = defaultdict(list)

    def emit(self, record: logging.LogRecord) -> None:
        events: dict[Any, Callable[[dict[str, Any]], None]] = {
            LogEvent.RESOURCES_INFO: self._resources,
            LogEvent.RUN_INFO: self._plan,
            LogEvent.JOB_INFO: self._started,
            LogEvent.JOB_FINISHED: self._finished,
            LogEvent.JOB_ERROR: self._failed,
            LogEvent.ERROR: self._error,
        }
        show = events.get(getattr(record, "event", None))
        if show is not None:
            show(record.__dict__)
        elif record.levelno >= logging.WARNING or str(record.msg).startswith("Nothing to be done"):
            self._print(str(record.msg))

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _line(self, word: str, text: str) -> None:
        done, total = sum(map(len, self.took.values())), sum(self.planned.values())
        self._print(f"{clock(time.monotonic() - self.start):>8}  {done:>4} of {total}  {word:<7} {text}")

    def _resources(self, fields: dict[str, Any]) -> None:
        self.cores = fields.get("cores") or self.cores

    def _plan(self, fields: dict[str, Any]) -> None:
        counts = {rule: count for rule, count in fields["stats"].items() if rule != "total"}
        self.planned = Counter(counts)
        rules = ", ".join(f"{count} {rule}" for rule, count in counts.items() if rule != "all")
        self._print(f"{sum(counts.values())} jobs: {rules}; up to {self.cores} at a time\n")

    def _started(self, fields: dict[str, Any]) -> None:
        text = fields["rule_msg"] or fields["rule_name"]
        self.jobs[fields["jobid"]] = (fields["rule_name"], text, time.monotonic())
        if fields["rule_name"] != "all":
            self._line("start", text)

    def _finished(self, fields: dict[str, Any]) -> None:
        rule, text, started = self.jobs.pop(fields["job_id"], ("all", "all", time.monotonic()))
        seconds = time.monotonic() - started
        self.took[rule].append(seconds)
        if rule != "all":
            self._line("done", f"{text}  ({clock(seconds)}){self._left()}")

    def _left(self) -> str:
        """The clause about the time left, or nothing when a rule is still unknown or the end is near."""
        if any(rule not in self.took for rule in self.planned if rule not in _QUICK):
            return ""
        ahead = sum(
            (self.planned[rule] - len(times)) * sum(times) / len(times)
            for rule, times in self.took.items()
            if self.planned[rule] > len(times)
        )
        minutes = ahead / self.cores / 60
        return f"   about {minutes:.0f} min left" if minutes >= 1 else ""

    def _failed(self, fields: dict[str, Any]) -> None:
        _, text, _ = self.jobs.get(fields["jobid"], (fields["rule_name"], fields["rule_name"], 0.0))
        self._line("FAILED", f"{text}  (log: {', '.join(fields['log']) or 'none'})")

    def _error(self, fields: dict[str, Any]) -> None:
        if "CalledProcessError" not in str(fields["msg"]):  # the failed job has its own line, and the end of its log comes last
            self._print(str(fields["msg"]))
