"""A few threads for the views of one scene: NumPy, torch, Blosc and crc32c let others run while they work on a view."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")

MOST_THREADS = 4
"""More gain nothing: two to four threads move as many bytes as a machine's memory can."""

SMALL_BYTES = 4_000_000
"""Below this a scene is done before threads have started."""


def usual_threads() -> int:
    """Return the default number of threads for reading and packing: the cores that this process may use, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, cores)


def in_order(work: Callable[[int], Result], count: int, threads: int) -> Generator[Result, None, None]:
    """Yield work(0), work(1), ... of ``count`` numbers in order, computed ahead by ``threads`` threads (1: by the caller).

    At most ``threads`` + 1 results wait at any time. The first error is raised; what has not begun then is dropped. The
    threads end with the iterator, so that a process which is forked later does not inherit a pool without its threads.
    """
    if min(threads, count) < 2:
        yield from map(work, range(count))
        return
    with ThreadPoolExecutor(min(threads, count), thread_name_prefix="views") as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(work, number) for number in range(min(count, threads + 1)))
        try:
            for following in range(len(waiting), count + len(waiting)):
                result = waiting.popleft().result()
                if following < count:
                    waiting.append(pool.submit(work, following))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def each(work: Callable[[int], None], count: int, threads: int) -> None:
    """Run work(0) to work(count - 1) in ``threads`` threads; raise the first error."""
    for _ in in_order(work, count, threads):
        pass


class Scratch(threading.local):
    """Arrays to work in, one per thread, shape and type: new memory for every view costs as much as decoding it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[int, ...], str], NDArray[Any]] = {}

    def array(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return an array with arbitrary content (whatever was left in it)."""
        key = (shape, dtype)
        if key not in self._kept:
            self._kept[key] = np.empty(shape, dtype=dtype)
        return self._kept[key]
