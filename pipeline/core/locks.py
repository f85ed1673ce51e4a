"""One writer per folder: an advisory lock on a file in it, released by the kernel when its process dies, however it dies.

So a stale lock needs no clean-up: whoever comes next gets it. The file's text only says who holds it.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import Timeout, UnixFileLock

from pipeline.core.errors import BusyError, EnvironmentFaultError
from pipeline.core.files import sweep

NAME = "writer.lock"
PATIENCE_S = 0.2
"""A holder that has just removed the file (``release``) is not taken for one that works."""


class FolderLock:
    """Exclusive lock on ``folder`` from ``acquire`` to ``release``. BusyError when another live process holds it.

    What killed processes left half written is removed when the lock is taken.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME
        # Any thread may release it. A file system without locks is refused: a file that merely exists outlives its process.
        self._lock = UnixFileLock(
            self.path, timeout=PATIENCE_S, poll_interval=PATIENCE_S / 10, thread_local=False, fallback_to_soft=False
        )

    def acquire(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise self._busy() from None
        except OSError as error:
            if error.filename is not None:  # not the lock: the file cannot be opened
                raise
            raise EnvironmentFaultError(
                f"the file system of {self.path} cannot lock files ({error.strerror})",
                fix="put results/ on a file system with POSIX locks (local disk, NFSv4, Lustre mounted with flock)",
            ) from None
        try:
            with self.path.open("w", encoding="utf-8") as stream:
                json.dump({"pid": os.getpid(), "host": platform.node()}, stream)
            sweep(self.folder)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._lock.is_locked:
            with suppress(OSError):
                self.path.unlink()
            self._lock.release()

    def _busy(self) -> BusyError:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            holder, stop = f"pid {int(content['pid'])} on {content['host']}", f" (kill {int(content['pid'])})"
        except (OSError, ValueError, KeyError, TypeError):
            holder, stop = "holder unknown", ""
        return BusyError(
            f"another process ({holder}) is still working on this folder",
            where=str(self.folder),
            fix=f"wait for it to end, or stop it{stop}, and run the same command again; what it has finished is kept",
        )

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
