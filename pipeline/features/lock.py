"""One writer per shard: an advisory lock on a file, released by the kernel when its process dies, however it dies.

So a stale lock needs no clean-up: whoever comes next gets it. The file's text only says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline.errors import StoreError


class WriterLock:
    """Exclusive lock on ``path`` from ``acquire`` to ``release``. StoreError when another live writer holds it."""

    def __init__(self, path: Path):
        self.path = path
        self._stream: IO[str] | None = None

    def acquire(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            if isinstance(error, BlockingIOError):
                raise StoreError(
                    f"another process is writing this shard ({self._holder()})",
                    where=str(self.path),
                    mend="wait for it to end, or stop it; its finished scenes are kept",
                ) from None
            raise StoreError(
                f"the file system of {self.path} cannot lock files ({error.strerror})",
                mend="put results/ on a file system with POSIX locks (local disk, NFSv4, Lustre mounted with flock)",
            ) from None
        self._stream = stream
        try:
            stream.seek(0)
            stream.truncate()
            json.dump({"pid": os.getpid(), "host": platform.node()}, stream)
            stream.flush()
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; harmless when it is not held. The file stays: removing it would race with the next writer."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            os.truncate(stream.fileno(), 0)
            # Not by closing alone: a process that was forked meanwhile has the file open, too, and would keep the lock.
            fcntl.flock(stream, fcntl.LOCK_UN)
        finally:
            with suppress(OSError):  # text that a full disk did not take
                stream.close()

    def _holder(self) -> str:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return f"process {content['pid']} on {content['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "holder unknown"
