"""Pages of memory made ready before they are used, while other threads run.

Of a mapped file: what is not in memory yet is read from the disk, and a disk that fails or a file that was cut is an OSError
here where touching the page would end the process. ``mmap.madvise`` does the same but lets no other thread run meanwhile: 130
ms for 300 MB of a local disk, more of a network's, in which a training could launch no kernel. A call through ctypes does.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14, which Python has no name for."""


@lru_cache(maxsize=1)
def _madvise() -> Callable[[int, int, int], int] | None:
    """The C library's function; None on systems where the number above means something else."""
    if sys.platform != "linux":
        return None
    found = ctypes.CDLL(None, use_errno=True).madvise
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return found


def bring_in(mapped: NDArray[np.uint8]) -> None:
    """Have all pages of mapped bytes (n,) in memory. OSError when the disk fails or the file is shorter now.

    Nothing happens on systems that have no such call (Linux before 5.14, others).
    """
    madvise = _madvise()
    if madvise is None or not mapped.nbytes:
        return
    start = mapped.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    stop = mapped.ctypes.data + mapped.nbytes
    if madvise(start, stop - start, _POPULATE_READ) and ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
