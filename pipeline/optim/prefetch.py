"""Batches made ahead in a thread while the current one is computed with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Batch = TypeVar("Batch")


def prefetch(make: Callable[[int], Batch], steps: range, *, ahead: int = 2) -> Iterator[tuple[int, Batch]]:
    """Yield (step, ``make(step)``) for every step, in order; one thread makes up to ``ahead`` batches beside the current one.

    An error in the thread is raised here, at its step. Leaving the loop early waits for the batch in the making alone.
    """
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        try:
            waiting.extend(pool.submit(make, step) for step in steps[:ahead])
            for place, step in enumerate(steps):
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(make, later) for later in steps[place + ahead : place + ahead + 1])
                yield step, batch
                del batch
        finally:
            for future in waiting:
                future.cancel()
