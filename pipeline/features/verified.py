"""Views of one stored array, compared with their checksums before they are used first: nothing corrupt is ever unpacked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features.arrays import MappedArray
from pipeline.features.checks import damaged, view_checksum
from pipeline.features.parallel import SMALL_BYTES, Scratch, each


class VerifiedArray:
    """One array (V,...) of a scene. ``checksums`` of its views as stored, ``seen`` (V bytes) which are known to be right.

    Several threads may use it, and several of it may share ``seen``: setting a byte needs no lock.
    """

    def __init__(self, array: MappedArray, checksums: tuple[str, ...], frame_ids: tuple[str, ...], seen: bytearray):
        self.array, self._checksums, self._frame_ids, self._seen = array, checksums, frame_ids, seen

    def check(self, view: int) -> NDArray[np.uint8]:
        """A view's bytes as stored, mapped. StoreError when they are not what was written."""
        stored = self.array.stored(view)
        if not self._seen[view]:
            if view_checksum(stored) != self._checksums[view]:
                how = f"checksum of {self.array.name} of view {view}, frame {self._frame_ids[view]!r}, is wrong"
                raise damaged(self.array.store, self.array.scene_id, how)
            self._seen[view] = 1
        return stored

    def view(self, view: int, scratch: Scratch) -> NDArray[Any]:
        """A view's numbers (...): mapped, or unpacked into ``scratch``, where the next view will be."""
        stored = self.check(view)
        if not self.array.packed:
            return self.array.view(view)
        numbers = scratch.array(self.array.shape[1:], self.array.dtype)
        self.array.unpack(stored, numbers)
        return numbers

    def views(self, span: slice, threads: int) -> NDArray[Any]:
        """Views ``span.start`` up to ``span.stop`` (n,...): mapped without a copy, or unpacked by ``threads`` threads."""
        if not self.array.packed:
            for view in range(span.start, span.stop):
                self.check(view)
            return self.array.views(span)
        numbers = np.empty((span.stop - span.start, *self.array.shape[1:]), dtype=self.array.dtype)

        def unpack(number: int) -> None:
            self.array.unpack(self.check(span.start + number), numbers[number])

        each(unpack, len(numbers), threads if numbers.nbytes > SMALL_BYTES else 1)
        return numbers
