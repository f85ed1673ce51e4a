"""Faults of disks, permissions and paths, whoever met them: ONE message with cause, file and fix instead of a traceback.

Libraries wrap what the system says: safetensors and tokenizers (Rust) write ``(os error 28)`` into exceptions of their own,
torch raises a RuntimeError about positions in its archive while the OSError stands behind it.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import EnvironmentFaultError

_AGAIN = "and run the same command again; what is finished is kept"
_FULL = {
    errno.ENOSPC: ("no space is left on the disk", f"free space (df -h) {_AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"free space (quota -s) {_AGAIN}"),
    errno.EFBIG: ("file too large", f"raise the limit of file sizes (ulimit -f), or choose another file system, {_AGAIN}"),
}
_DENIED = (errno.EACCES, errno.EPERM)
_FAILING = (errno.EIO, errno.ESTALE)
_PLACES = (
    errno.EBUSY, errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.ENAMETOOLONG, errno.ENFILE,
    errno.ENODEV, errno.ENOENT, errno.ENOLCK, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENXIO, errno.EROFS, errno.ETXTBSY,
)  # fmt: skip
_RUST = re.compile(r"\(os error (\d+)\)")
_TORCH = re.compile("PytorchStreamWriter|unexpected pos|basic_ios::clear")
"""What torch.save says of a file that does not take its bytes; when it writes to a stream, the OSError is behind it."""


def environment_fault(error: BaseException, place: Path | None = None) -> EnvironmentFaultError | None:
    """The message for a fault of the system that ``error`` is or comes from; None for anything else, which is a bug.

    ``place`` is named where the error names no file.
    """
    where = str(place) if place else None
    for found in _chain(error):
        number, name, said = _system_error(found)
        if number is None or (number == errno.ENOENT and name is None):
            continue
        return _message(number, name or where, said or os.strerror(number))
    if _of_torch(error):
        fix = f"free space (df -h), or raise the limit of file sizes (ulimit -f), {_AGAIN}"
        return EnvironmentFaultError("a file could not be written (is the disk full?)", where=where, fix=fix)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from; of torch also what it met meanwhile."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (error.__context__ if _of_torch(error) else None)


def _of_torch(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and _TORCH.search(str(error)) is not None


def _system_error(error: BaseException) -> tuple[int | None, str | None, str | None]:
    """Number, file and words of an error of the system."""
    if isinstance(error, OSError) and error.errno is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
        return error.errno, name, error.strerror
    found = _RUST.search(str(error))
    return (int(found[1]), None, None) if found else (None, None, None)


def _message(number: int, where: str | None, said: str) -> EnvironmentFaultError | None:
    if number in _FULL:
        what, fix = _FULL[number]
    elif number in _DENIED:
        what = f"no permission ({said})"
        fix = f"let this user read or write it (ls -ld shows its mode and its folder's, chmod changes it) {_AGAIN}"
    elif number in _FAILING:
        what, fix = f"the disk fails ({said})", f"fix it (dmesg), or choose another, {_AGAIN}"
    elif number in _PLACES:
        what, fix = f"a file or folder cannot be used ({said})", f"fix the path, or choose another, {_AGAIN}"
    else:
        return None
    return EnvironmentFaultError(what, where=where, fix=fix)
