"""Snakemake's own display of a failed job, without what the job's log says better.

Imported by workflow/rules/common.smk. `make run` has a display of its own (workflow/logger).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent


class _WithoutShellFaults(logging.Filter):
    """Leaves out that the shell command failed, which repeats the command; the failed job has a message of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (getattr(record, "event", None) == LogEvent.ERROR and "CalledProcessError" in str(record.msg))


class _WithoutCommand(DefaultFormatter):
    """A failed job by its rule, its files and its log; the command would add the whole specification as JSON."""

    def format_job_error(self, msg: dict[str, Any]) -> str:
        return str(super().format_job_error({**msg, "msg": None, "shellcmd": None}))


def shorten(handlers: Sequence[logging.Handler]) -> None:
    """Shorten what goes to the screen; the complete log under .snakemake/log keeps everything."""
    for handler in handlers:
        shown = handler.formatter
        if isinstance(shown, DefaultFormatter) and not isinstance(handler, logging.FileHandler):
            handler.setFormatter(_WithoutCommand(shown.quiet, shown.show_failed_logs))
            handler.addFilter(_WithoutShellFaults())
