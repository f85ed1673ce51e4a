"""The extraction engine: while one scene is encoded, the next ones are decoded and the last ones written.

    reader threads (decode, resize)  ->  this thread (encode, in order)  ->  writer thread (wait for device, store, in order)

Memory is bounded whatever the data set's size: ``Concurrency.scenes`` scenes are between two disks at any time. After any
failure the scenes encoded before it are stored, and a rerun continues after them.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.core.progress import Progress
from pipeline.core.runtime import enough_memory
from pipeline.features.memory import FEWER_SCENES, Encoder, Prepared
from pipeline.features.store import FeatureWriter
from pipeline.scenes.index import SceneIndex, source_digest
from pipeline.scenes.types import SceneRecord
from pipeline.teachers.base import Teacher, TeacherFeatures

MOST_READERS = 8


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Limits of an extraction's concurrency: ``readers`` threads decode; ``scenes`` bounds what is read, encoded or being
    written.
    """

    readers: int = 1
    scenes: int = 3

    @classmethod
    def of_threads(cls, threads: int) -> Concurrency:
        """Return the setting for a job of ``threads`` CPU threads: all but one decode (1 to 8), and two more scenes wait."""
        readers = max(1, min(threads - 1, MOST_READERS))
        return cls(readers, readers + 2)


def extract_shard(
    index: SceneIndex,
    records: Sequence[SceneRecord],
    teacher: Teacher,
    writer: FeatureWriter,
    flight: Concurrency | None = None,
) -> int:
    """Encode and store every record that is not stored yet; their number. An error keeps all scenes encoded before it."""
    todo = [record for record in records if not writer.is_done(record.scene_id, record.frame_ids, source_digest(record))]
    label = f"extract {writer.spec.dataset}/{teacher.name}"
    if len(todo) < len(records):
        print(f"{label}: {len(records) - len(todo)} of {len(records)} scenes are stored already", file=sys.stderr)
    with Progress(label, len(todo), "scenes") as progress:
        _Run(Encoder(index, teacher, label), writer, flight or Concurrency(), progress).run(todo)
    return len(todo)


class _Run:
    """One pass over the records."""

    def __init__(self, encoder: Encoder, writer: FeatureWriter, flight: Concurrency, progress: Progress):
        self.encoder, self.writer, self.flight, self.progress = encoder, writer, flight, progress
        self.reading: deque[tuple[SceneRecord, Future[Prepared]]] = deque()
        self.writing: deque[Future[None]] = deque()

    def run(self, records: Sequence[SceneRecord]) -> None:
        upcoming = iter(records)
        with _threads("write", 1, cancel=False) as keeper, _threads("read", self.flight.readers, cancel=True) as readers:
            self._read_ahead(upcoming, readers)
            while self.reading or self.writing:
                heads: list[Future[Any]] = [*(entry[1] for entry in list(self.reading)[:1]), *list(self.writing)[:1]]
                wait(heads, return_when=FIRST_COMPLETED)
                self._collect()
                if self.reading and self.reading[0][1].done():
                    record, future = self.reading.popleft()
                    features = self.encoder.start(record, future.result())
                    del future  # holds the scene's pixels
                    self.writing.append(keeper.submit(self._store, record, features))
                self._read_ahead(upcoming, readers)

    def _read_ahead(self, upcoming: Iterator[SceneRecord], readers: ThreadPoolExecutor) -> None:
        while len(self.reading) + len(self.writing) < self.flight.scenes:
            record = next(upcoming, None)
            if record is None:
                return
            self.reading.append((record, readers.submit(self.encoder.read, record)))

    def _collect(self) -> None:
        """Count the scenes that are on disk now; raise the error of one that could not be written."""
        while self.writing and self.writing[0].done():
            self.writing.popleft().result()
            self.progress.step()

    def _store(self, record: SceneRecord, features: Callable[[], TeacherFeatures]) -> None:
        with enough_memory(f"scene {record.scene_id!r} was being fetched and written", FEWER_SCENES):
            own = self.encoder.teacher.grid(*record.image_size)
            self.writer.write(record.scene_id, record.frame_ids, features(), own, source=source_digest(record))


@contextmanager
def _threads(name: str, count: int, *, cancel: bool) -> Iterator[ThreadPoolExecutor]:
    """Yield threads that end with the context. ``cancel``: drop work that has not begun by then, else finish it first."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=cancel)
