"""Files that are there whole or not at all, with the mode that the user's umask allows, and what is no file at all.

A file is written beside its place under a name that begins with a dot and ends in UNFINISHED, flushed to the disk and renamed.
An error removes it. What a killed try left is removed by the next try of the same file, and by whoever takes the folder's
lock (locks.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = ".unfinished"
_SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_SYSTEM = ("/dev/", "/proc/", "/sys/")
"""Where pipes and devices are meant: /dev/stdin, or /dev/fd/63, which is how shells spell <(command)."""


# ------------------------------------------------------------ writing


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A stream whose bytes become ``path`` when the block ends; after an error nothing has changed.

    A live process that writes the same file is waited for. ``durable``: on the disk before it is renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with _own(temporary) as stream:
            try:
                yield stream
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a write names no file
            error.filename = str(path)
        raise


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A private folder, for libraries that write by name: its files move into ``folder`` when the block ends without an error.

    safetensors makes its files readable to their owner alone, whatever the umask; here they get the usual mode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix=".", suffix=UNFINISHED, dir=folder))
    try:
        yield private
        for path in settle(private):
            target = folder / path.relative_to(private)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        fsync(folder)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def settle(folder: Path) -> list[Path]:
    """All files below a folder, after they were flushed to the disk and got the mode that the umask allows (0666 & ~umask)."""
    model = folder / f".mode{UNFINISHED}"
    model.touch()
    mode = stat.S_IMODE(model.stat().st_mode)
    model.unlink()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        path.chmod(mode)
        fsync(path)
    return files


def fsync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what killed tries left in a folder. Only for whoever holds the folder's lock: nobody else writes there."""
    for place in (folder, folder / "checkpoints", folder / "training"):
        for path in place.glob(f".*{UNFINISHED}"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _own(temporary: Path) -> BinaryIO:
    """The temporary file, new, and locked as long as the stream is open: so the next one knows whether its writer lives."""
    while True:
        try:
            stream = temporary.open("xb")
        except FileExistsError:
            _remove_leftover(temporary)
            continue
        _lock(stream)
        if _is_at(stream, temporary):
            return stream
        stream.close()  # another process took it for a leftover before it was locked


def _remove_leftover(temporary: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(temporary.lstat().st_mode):
            temporary.unlink()
            return
        try:
            with temporary.open("r+b") as left:
                _lock(left)
                if _is_at(left, temporary):
                    temporary.unlink()
        except PermissionError:  # another user's; whether it can go, the folder decides
            temporary.unlink()


def _lock(stream: BinaryIO) -> None:
    with suppress(OSError):  # a file system without locks: then two writers at once are not told apart from a leftover
        fcntl.flock(stream, fcntl.LOCK_EX)


def _is_at(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.lstat())
    except FileNotFoundError:
        return False


# ------------------------------------------------------------ reading


def check_readable(path: Path) -> None:
    """OSError with the true cause for a file that is there but may not be read, or is no regular file.

    For readers in Rust and C++: safetensors says of every file that it cannot open that there is none, and both wait for
    ever at a named pipe. A missing file passes: its reader says so.
    """
    try:
        _refuse_special(path)
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError):
        return


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what a folder holds of this name pattern, sorted. Unlike ``glob`` a PermissionError where it may not be read."""
    return sorted(path for path in folder.iterdir() if path.match(pattern))


def refuse_special_files() -> None:
    """From now on every ``open`` of this process refuses named pipes, sockets and devices with an OSError that says so.

    Whoever reads a pipe that nobody writes waits for ever, and any input of a user may be one, read by any library. So
    this stands in ONE place, Python's audit event of ``open``, which all Python code raises; ``check_readable`` is for the
    rest. It cannot be undone, costs 4 us a file, and leaves /dev, /proc and /sys alone.
    """
    global _refusing
    if not _refusing:
        _refusing = True
        sys.addaudithook(_before_open)


_refusing = False


def _before_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _refuse_special(arguments[0])


def _refuse_special(path: str | bytes | os.PathLike[Any]) -> None:
    name = os.fsdecode(path)
    try:
        kind = _SPECIAL.get(stat.S_IFMT(os.stat(name).st_mode))
    except (OSError, ValueError):  # said by whoever opens it
        return
    if kind is not None and not name.startswith(_SYSTEM):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", name)
