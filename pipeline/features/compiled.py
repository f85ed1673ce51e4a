"""Unpacking bfloat16 in one pass over memory, compiled by Numba: as fast as copying, and other threads run meanwhile.

exponents.py describes the format and has the same in NumPy, for views that are too small for this to pay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint16]
Unpack = Callable[[Words, np.uint16, Words], None]
"""(words (3,q), lowest exponent field << 7, numbers (4,q) to be filled)."""


@lru_cache(maxsize=1)
def unpack_words() -> Unpack:
    """The compiled function; it is compiled once per machine (a second) and kept in Numba's cache, where one can be written."""
    from numba import njit

    signature = "void(u2[:,::1],u2,u2[:,::1])"
    try:
        found: Unpack = njit(signature, nogil=True, cache=True)(_unpack_words)
    except RuntimeError:  # no folder for the cache may be written: compiled anew in every process
        found = njit(signature, nogil=True)(_unpack_words)
    return found


def _unpack_words(words: Words, lowest: np.uint16, numbers: Words) -> Any:
    # Explicit uint16 everywhere: Numba would widen to 64 bits, four times slower.
    sign, code, four, eight, fifteen = np.uint16(0x8000), np.uint16(0x7FF), np.uint16(4), np.uint16(8), np.uint16(15)
    for i in range(words.shape[1]):
        a, b, c = words[0, i], words[1, i], words[2, i]
        numbers[0, i] = np.uint16(((a & sign) | ((a >> four) & code)) + lowest)
        numbers[1, i] = np.uint16(((b & sign) | ((b >> four) & code)) + lowest)
        numbers[2, i] = np.uint16(((c & sign) | ((c >> four) & code)) + lowest)
        last = ((a & fifteen) << eight) | ((b & fifteen) << four) | (c & fifteen)
        numbers[3, i] = np.uint16((((last << four) & sign) | (last & code)) + lowest)
