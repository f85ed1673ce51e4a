"""One writer per folder: an advisory lock on a file in it, released by the kernel when its process dies, however it dies.

So a stale lock needs no clean-up: whoever comes next gets it. The file's text only says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from pipeline.errors import BusyError, EnvironmentFaultError
from pipeline.files import sweep

NAME = "writer.lock"


class FolderLock:
    """Exclusive lock on ``folder`` from ``acquire`` to ``release``. BusyError when another live process holds it.

    What killed processes left half written is removed when the lock is taken.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME
        self._stream: IO[str] | None = None

    def acquire(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        stream = self._locked()
        self._stream = stream
        try:
            stream.seek(0)
            stream.truncate()
            json.dump({"pid": os.getpid(), "host": platform.node()}, stream)
            stream.flush()
            sweep(self.folder)
        except OSError:
            self.release()
            raise

    def _locked(self) -> IO[str]:
        """The lock's file, locked; not one that its last holder has removed meanwhile."""
        while True:
            stream = self.path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.path.exists() and os.path.samestat(os.fstat(stream.fileno()), self.path.stat()):
                    return stream
            except BlockingIOError:
                stream.close()
                raise self._busy() from None
            except FileNotFoundError:
                pass
            except OSError as error:
                stream.close()
                raise EnvironmentFaultError(
                    f"the file system of {self.path} cannot lock files ({error.strerror})",
                    fix="put results/ on a file system with POSIX locks (local disk, NFSv4, Lustre mounted with flock)",
                ) from None
            stream.close()

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            with suppress(OSError):
                self.path.unlink()
            # Not by closing alone: a process that was forked meanwhile has the file open, too, and would keep the lock.
            fcntl.flock(stream, fcntl.LOCK_UN)
        finally:
            with suppress(OSError):  # text that a full disk did not take
                stream.close()

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
