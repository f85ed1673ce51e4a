"""Worker processes for scenes that are made one by one: they end with the process that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pipeline.core.errors import EnvironmentFaultError
from pipeline.core.files import refuse_special_files

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], processes: int, *, doing: str, chunk: int = 1, fewest: int = 1
) -> Iterator[Result]:
    """work(job) of every job, in order, by ``processes`` worker processes that take ``chunk`` jobs at a time.

    In this process where one is enough: of fewer jobs than ``fewest``.
    EnvironmentFaultError, which says what was being done, when a worker dies. The workers are spawned, not forked: Open3D holds
    threads.
    """
    if processes <= 1 or len(jobs) < fewest:
        yield from map(work, jobs)
        return
    # An executor, not a Pool: a killed worker is an error there, not a hang.
    workers = ProcessPoolExecutor(
        min(processes, len(jobs)), mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
    )
    try:
        yield from workers.map(work, jobs, chunksize=chunk)
    except BrokenProcessPool:
        fix = "run it again with fewer --threads; what is finished is kept"
        raise EnvironmentFaultError(f"a worker process died while {doing} (out of memory?)", fix=fix) from None
    finally:
        workers.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the parent; end when the parent was killed; open no pipes."""
    refuse_special_files()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
